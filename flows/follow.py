"""The flow that follows an alias of a teacher in a registry: the recipe gets the version that it points at, and is built anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Cancelled, Completed, Failed, State
from slm_registry import Registry
from slm_registry.errors import RegistryError

from flows import child
from flows.build import SKIPPED
from flows.console import without_tracebacks
from flows.editing import replace_params, with_values
from flows.errors import Busy, FlowError, HistoryError
from flows.graph import find_root, repository_lock
from flows.history import commit_file, committed_text, last_change
from flows.receipt import FOLDER
from flows.standing import UP_TO_DATE
from flows.starting import start_once
from pipelines.alone import alone
from pipelines.bundle import sha256_of
from pipelines.config import load_params, load_recipe
from pipelines.errors import FactoryError, RecipeError, TransientError
from pipelines.sources import WEIGHTS, Registered, registered

FOLLOWED = "Followed"
PARAMS = "params.yaml"


@dataclass(frozen=True)
class Followed:
    """The teacher's version that a recipe names now, whether it named another before, the commit of that, and the run that was started for it."""

    model: str
    teacher: Registered
    moved: bool
    commit: str | None
    build: str | None


@flow(name="follow", flow_run_name="follow · {model}")  # type: ignore[untyped-decorator]  # Prefect is not followed by mypy
def follow(model: str, alias: str = "production", build: str | None = None) -> State[Any]:
    """Look where an alias of a recipe's teacher points; where that is another version, write it into the recipe and commit that.

    Args:
        model: Name of a recipe in params.yaml whose teach.source is registry:URL#NAME@VERSION.
        alias: Alias of the teacher that is followed.
        build: Deployment that is started once for each version, such as build/support-intents. Empty: none, a schedule finds the change.
    """
    root = find_root(Path.cwd())
    try:
        with (
            child.ends_with_its_worker(),
            without_tracebacks(FlowError, FactoryError, RegistryError),
            _without_builds(root),
        ):
            found = _follow(root, model, alias, build)
    except Busy as busy:
        return Cancelled(name=SKIPPED, message=str(busy), data=busy)
    except (FlowError, FactoryError, RegistryError) as error:
        return Failed(message=f"{type(error).__name__}: {error}", data=error)
    word = FOLLOWED if found.moved else UP_TO_DATE
    started = f"; {build} was started as {found.build}" if found.build else ""
    return Completed(name=word, message=f"{model}: its teacher is {found.teacher}{started}", data=found)


def _follow(root: Path, model: str, alias: str, build: str | None) -> Followed:
    before = teacher_of(root / PARAMS, model)
    resolved, folder = Registry(before.url).fetch(f"{before.name}@{alias}")
    if not (folder / WEIGHTS).is_file():
        raise RecipeError(
            f"{before.name} {resolved.version} in {before.url} has no {WEIGHTS}; a teacher is published with its weights"
        )
    now = Registered(before.url, before.name, resolved.version)
    wanted = {"source": str(now), "sha256": sha256_of(folder / WEIGHTS)}
    message = f"{model}: teacher {now.name} {now.version}"
    with repository_lock(root):
        commit = _write(root, model, wanted, message)
    # By the commit, so that a version that comes back is built again; a run that was killed before this line starts it now.
    last, subject = last_change(root, PARAMS)
    started = start_once(build, f"follow-{model}-{last}") if build and subject == message else None
    return Followed(model, now, commit is not None, commit, started)


@contextmanager
def _without_builds(root: Path) -> Iterator[None]:
    """Keep builds of any model from beginning meanwhile: one that commits must end on the commit that it began from. Raises Busy where one goes on."""
    with ExitStack() as held:
        try:
            for name in sorted(load_params(root / PARAMS).models):
                held.enter_context(alone(root / FOLDER / f"{name}.build"))
        except TransientError as error:
            raise Busy(f"a build goes on here, so nothing is written now: {error}") from error
        yield


def teacher_of(params: Path, model: str) -> Registered:
    """The version that a recipe's teacher is. Raises RecipeError where it comes from elsewhere."""
    source = getattr(load_recipe(params, model).teach, "source", "")
    found = registered(source)
    if found is None:
        raise RecipeError(
            f"{params}: models.{model}.teach.source is {source!r}: an alias is followed of a teacher in a registry, registry:URL#NAME@VERSION"
        )
    return found


def _write(root: Path, model: str, wanted: dict[str, str], message: str) -> str | None:
    """Write the values and commit them; the commit, None where the last one has them. Killed between the two, the next run commits.

    Raises HistoryError where params.yaml has other changes, which are somebody's work.
    """
    committed, params = committed_text(root, PARAMS), root / PARAMS
    text = params.read_text(encoding="utf-8")
    after = with_values(params, committed, model, "teach", wanted)
    if text == committed and _has(params, model, wanted):
        return None
    if text not in (committed, after):
        raise HistoryError(
            f"{params}: changed and not committed; commit or undo that first, the teacher's new version is written into it"
        )
    replace_params(params, after)
    commit = commit_file(root, PARAMS, message)
    get_run_logger(model=model).info("%s, committed as %s", message, commit[:12])
    return commit


def _has(params: Path, model: str, wanted: dict[str, str]) -> bool:
    teach = load_recipe(params, model).teach
    return all(getattr(teach, key) == value for key, value in wanted.items())
