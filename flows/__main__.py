"""`python -m flows build|explore|verify|monitor|follow|reproduce|costs|new NAME`: the factory from the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.environment import disable_telemetry, importing
from pipelines.errors import FactoryError, TransientError

if TYPE_CHECKING:
    from prefect.states import State

    from flows.graph import Plan
    from flows.standing import BuildResult


TASKS = ("text-classification", "token-classification", "text-generation", "text-to-text")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m flows", description="Build small models, and write recipes for new ones."
    )
    commands = top.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="run what is stale, then publish", description="Run what DVC finds stale, gate, publish."
    )
    build.add_argument("name", help="name of a recipe in params.yaml")
    build.add_argument(
        "--publish", metavar="URL", help="registry to publish to: a folder or s3://BUCKET/PREFIX (default: build only)"
    )
    build.add_argument(
        "--alias", default="candidate", help="alias that points at the published version (default: candidate)"
    )
    build.add_argument(
        "--commit",
        metavar="BRANCH",
        help="commit dvc.lock to a branch before publishing; HEAD: the one that is checked out (default: no commit)",
    )
    build.add_argument("--push", metavar="REMOTE", help="git remote that this branch is pushed to (default: none)")
    build.add_argument(
        "--update", action="store_true", help="first look for what changed at the origins of imported data"
    )
    build.add_argument(
        "--budget", metavar="BOUNDS", help="what the model may cost, as in '12MB 2ms 6pt'; written into its recipe"
    )
    _add_workers(build)
    build.add_argument("--plan", action="store_true", help="only show which stages would run, and why")
    front = commands.add_parser(
        "explore",
        help="measure what a student's shapes cost and reach",
        description="Run what is stale up to the front, and show it.",
    )
    front.add_argument("name", help="name of a recipe in params.yaml whose student is elastic")
    _add_workers(front)
    again = commands.add_parser(
        "reproduce", help="build twice, compare the bytes", description="Build the commit twice from scratch."
    )
    again.add_argument("name", help="name of a recipe in params.yaml")
    check = commands.add_parser(
        "verify",
        help="build a published version again",
        description="Build a published version again from its commit, and compare the bytes.",
    )
    check.add_argument("name", help="name of the published model")
    check.add_argument("--registry", metavar="URL", required=True, help="a folder or s3://BUCKET/PREFIX")
    check.add_argument("--alias", default="candidate", help="alias or version (default: candidate)")
    watch = commands.add_parser(
        "monitor",
        help="has what a served model reads or answers drifted?",
        description="Hold the newest predictions of a served classifier against its evaluation.",
    )
    watch.add_argument("name", help="name of the published model")
    watch.add_argument("--registry", metavar="URL", required=True, help="a folder or s3://BUCKET/PREFIX")
    watch.add_argument("--log", metavar="FILE", required=True, help="what `slm-registry serve --log FILE` writes")
    watch.add_argument("--alias", default="production", help="alias or version that is served (default: production)")
    after = commands.add_parser(
        "follow",
        help="take the teacher's version that an alias points at",
        description="Write the version of a teacher in a registry that an alias points at into the recipe, and commit that.",
    )
    after.add_argument("name", help="name of a recipe in params.yaml whose teach.source is registry:URL#NAME@VERSION")
    after.add_argument("--alias", default="production", help="alias of the teacher (default: production)")
    costs = commands.add_parser(
        "costs",
        help="what the builds of a model took on this machine",
        description="Time, processor time, memory, energy and cost of each build on this machine, as a table and drawn.",
    )
    costs.add_argument("name", help="name of a recipe in params.yaml")
    costs.add_argument(
        "--watts", type=float, help="of a busy core: reckons energy where the processor does not show it"
    )
    costs.add_argument("--price", type=float, help="of a core for an hour, in whatever currency")
    costs.add_argument("--picture", metavar="FILE", type=Path, help="SVG or PNG to draw them to")
    new = commands.add_parser(
        "new", help="write a recipe for a data set", description="Look at a file and append a recipe to params.yaml."
    )
    new.add_argument("name", help="name of the new recipe")
    new.add_argument(
        "--data",
        metavar="FILE",
        required=True,
        type=Path,
        help="CSV, JSONL or Parquet file, or a folder with train/validation/test",
    )
    new.add_argument("--task", choices=TASKS, required=True, help="what the model is for")
    new.add_argument(
        "--teacher",
        metavar="SOURCE",
        help="a pretrained encoder: a folder, hub:ORG/NAME@REVISION or package:NAME/FOLDER (text-classification; default: MiniLM)",
    )
    new.add_argument(
        "--budget",
        metavar="BOUNDS",
        help="what the model may cost, as in '12MB 2ms 6pt': its shape is searched for (not of text-to-text)",
    )
    new.add_argument("--text-column", metavar="NAME", help="column of the texts (default: guessed, as the next ones)")
    new.add_argument("--label-column", metavar="NAME", help="column of the labels (text-classification)")
    new.add_argument("--tags-column", metavar="NAME", help="column of a BIO tag a word (token-classification)")
    new.add_argument("--target-column", metavar="NAME", help="column of the answers (text-to-text)")
    return top


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        metavar="WHERE",
        help="spread a front's parts over processes:N, dask:ADDRESS or ray:ADDRESS (default: one after the other)",
    )


def build_command(given: argparse.Namespace) -> int:
    """Build one model, or only show its plan; the exit code."""
    from flows.graph import find_root, make_plan
    from pipelines.config import load_recipe

    root = find_root(Path.cwd())
    name: str = given.name
    load_recipe(root / "params.yaml", name)
    if given.budget is not None:
        from flows.budget import write_budget

        write_budget(root / "params.yaml", name, given.budget)
    if given.plan:
        from rich.console import Console

        from flows.console import show_plan

        show_plan(make_plan(root, name), Console())
        return 0
    asked = {key: getattr(given, key) for key in ("publish", "alias", "workers", "commit", "push", "update")}
    _report(root, _standing(root, given) or _build(root, model=name, **asked))
    return 0


def explore_command(given: argparse.Namespace) -> int:
    """Run what is stale up to the front of one model, and show it; the exit code."""
    name: str = given.name
    from rich.console import Console

    from flows.budget import LOSSES, yardstick_at
    from flows.console import show_front
    from flows.graph import find_root, make_plan
    from pipelines.config import NoTechnique, load_recipe
    from pipelines.errors import RecipeError
    from pipelines.exploring.front import PAGE, read_front

    root = find_root(Path.cwd())
    recipe = load_recipe(root / "params.yaml", name)
    yardstick = yardstick_at(f"models.{name}", recipe.task)
    if isinstance(recipe.explore, NoTechnique):
        raise RecipeError(
            f"models.{name}.explore.technique is none, there is nothing to explore; write a recipe that a budget shapes with "
            f"`python -m flows new NAME --data FILE --task {recipe.task.type} --budget '{LOSSES[yardstick.key][1]}'`"
        )
    plan = _plan(root, given)
    if plan is None or plan.up_to("explore", name).stale:
        _build(root, model=name, until="explore", workers=given.workers)
    folder = (plan or make_plan(root, name)).out("front")
    show_front(read_front(root / folder).points, yardstick, Console())
    print(f"page       {os.path.relpath(root / folder / PAGE)}")
    return 0


def reproduce_command(given: argparse.Namespace) -> int:
    """Build one model twice from scratch; the exit code."""
    from flows.graph import find_root
    from flows.reproduce import reproduce
    from pipelines.config import load_recipe

    root = find_root(Path.cwd())
    load_recipe(root / "params.yaml", given.name)
    return reproduce(root, given.name)


def new_command(given: argparse.Namespace) -> int:
    """Write a recipe for a data set; the exit code."""
    from flows.new import Columns, new_recipe

    others = {key: getattr(given, key) for key in ("label_column", "tags_column", "target_column")}
    columns = Columns(given.text_column, others)
    return new_recipe(Path("params.yaml"), given.name, given.data, given.task, columns, given.teacher, given.budget)


def costs_command(given: argparse.Namespace) -> int:
    """Show what builds took; the exit code."""
    from rich.console import Console

    from flows.console import show_costs
    from flows.costs import draw, rows_of
    from flows.errors import FlowError
    from flows.graph import find_root
    from flows.ledger import entries
    from pipelines.config import load_recipe

    root = find_root(Path.cwd())
    load_recipe(root / "params.yaml", given.name)
    found = entries(root, given.name)
    if not found:
        raise FlowError(
            f"{given.name}: no build on this machine has run a stage yet; `python -m flows build {given.name}`"
        )
    show_costs(rows_of(found, given.watts, given.price), Console())
    if given.picture:
        draw(found, given.picture, given.watts, given.price)
    return 0


def verify_command(given: argparse.Namespace) -> int:
    """Build a published version again and show both digests of every file; the exit code."""
    from flows.graph import find_root
    from flows.verify import Verified

    found, state = _run_flow(
        find_root(Path.cwd()), "verify", model=given.name, registry=given.registry, alias=given.alias
    )
    assert isinstance(found, Verified)
    for path, (one, two) in sorted(found.files.items()):
        print(f"same   {path} {one}" if one == two else f"DIFFER {path} {one or 'absent'} / {two or 'absent'}")
    print(state.message)
    return 1 if found.different else 0


def monitor_command(given: argparse.Namespace) -> int:
    """Show what moved since the evaluation; the exit code is 1 where something drifted."""
    from flows.graph import find_root
    from flows.monitor import Watched

    asked = {key: getattr(given, key) for key in ("registry", "log", "alias")}
    found, state = _run_flow(find_root(Path.cwd()), "monitor", model=given.name, **asked)
    assert isinstance(found, Watched)
    print(state.message)
    return 1 if found.drifted else 0


def follow_command(given: argparse.Namespace) -> int:
    """Take the version that the teacher's alias points at, and say which; the exit code."""
    from flows.graph import find_root

    _, state = _run_flow(find_root(Path.cwd()), "follow", model=given.name, alias=given.alias)
    print(state.message)
    return 0


def _plan(root: Path, given: argparse.Namespace) -> Plan | None:
    """What there is to do, with DVC's own files mended; None where the flow must see: workers, imports, another build that goes on."""
    from flows.graph import make_plan
    from flows.mending import mend
    from flows.standing import lock_of_build
    from pipelines.alone import alone

    if given.workers or getattr(given, "update", False):
        return None
    try:
        with alone(lock_of_build(root, given.name)):
            for mended in mend(root):
                print(mended, file=sys.stderr)
            return make_plan(root, given.name)
    except TransientError:
        return None


def _standing(root: Path, given: argparse.Namespace) -> BuildResult | None:
    """What a build leaves that has nothing to do: no flow is begun for it, and no server."""
    from flows.history import check_history
    from flows.ledger import note_standing
    from flows.standing import UP_TO_DATE, Handing, standing

    began, plan = time.monotonic(), _plan(root, given)
    if plan is None or plan.stale:
        return None
    if given.commit or given.push:
        check_history(root, given.commit, given.push)
    done = standing(root, given.name, Handing(given.publish, given.alias, given.commit, given.push), plan)
    if done:
        note_standing(root, given.name, UP_TO_DATE, time.monotonic() - began)
        print(f"{given.name}: all {len(plan.steps)} stages are up to date", file=sys.stderr)
    return done


def _build(root: Path, **asked: Any) -> BuildResult:
    """The build's flow; what it leaves. Exits where it ended otherwise than well or with an error: cancelled from the page."""
    result, state = _run_flow(root, "build", **asked)
    from flows.standing import BuildResult

    if not isinstance(result, BuildResult):
        raise SystemExit(f"the build ended as {state.name}: {state.message}")
    return result


def _run_flow(root: Path, name: str, **asked: Any) -> tuple[Any, State[Any]]:
    """A flow against a server of its own; what it leaves, and its state. Raises what the flow failed with."""
    from flows.console import LOG_FORMATS
    from flows.server import prefect_api

    for key, value in LOG_FORMATS.items():
        os.environ.setdefault(key, value)
    home = _prefect_home(root).expanduser().absolute()
    os.environ["PREFECT_HOME"] = str(home)
    signal.signal(signal.SIGTERM, _terminate)
    module = f"flows.{name}"
    with prefect_api(home, meanwhile=lambda: _import_the_rest(module)):
        try:
            state = getattr(import_module(module), name)(**asked, return_state=True)
        except RuntimeError as error:
            if not _unreachable(error):
                raise
            raise TransientError(
                f"{error}; PREFECT_API_URL names that server: start it (`make up`), or `unset PREFECT_API_URL` for one of this build's own"
            ) from error
    result = state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result, state


def _unreachable(error: RuntimeError) -> bool:
    """Whether Prefect's client reached no server at the start of a flow, which it says in an error of no class of its own."""
    import httpx

    return isinstance(error.__cause__, httpx.TransportError)


def _prefect_home(root: Path) -> Path:
    """Where the runs of this project are kept: as the environment says, or beside it."""
    return Path(os.environ.get("PREFECT_HOME", root / ".prefect"))


def _import_the_rest(module: str) -> None:
    """Import what the flow needs while the server starts."""
    with importing():
        import dvc.repo  # noqa: F401

        import_module(module)


def _report(root: Path, result: BuildResult) -> None:
    """The result's table, the report's place, the next commands."""
    from rich.console import Console

    from flows.console import next_commands, show_result
    from flows.record import read_json
    from pipelines.config import load_recipe

    console, publication = Console(), result.publication
    if result.metrics:
        show_result(read_json(root / result.metrics), publication is not None, console)
    lines = [f"report     {os.path.relpath(root / result.report)}"] if result.report else []
    if publication:
        word = "published" if publication.created else "unchanged"
        lines.append(f"{word}  {publication.model} {publication.version} as {publication.alias} in {publication.url}")
        if publication.points_at != publication.version:
            lines[-1] += f"; {publication.alias} is {publication.points_at}, where somebody moved it"
    url, alias = (publication.url, publication.alias) if publication else (None, "")
    task = load_recipe(root / "params.yaml", result.model).task.type
    commands = next_commands(result.model, task, url, alias, _prefect_home(root))
    print("\n".join([*lines, "next:", *(f"  {command}" for command in commands)]))


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


COMMANDS = {
    "build": build_command,
    "explore": explore_command,
    "costs": costs_command,
    "verify": verify_command,
    "monitor": monitor_command,
    "follow": follow_command,
    "reproduce": reproduce_command,
    "new": new_command,
}


def main(argv: Sequence[str]) -> int:
    """Run one command; errors meant for the user are one message on stderr and an exit code."""
    disable_telemetry()
    given = parser().parse_args(argv)
    if given.command == "build" and given.plan and given.budget:
        parser().error("--plan changes nothing and --budget writes into params.yaml: leave one of them out")
    from slm_registry.errors import RegistryError

    from flows.errors import FlowError

    try:
        return COMMANDS[given.command](given)
    except (FlowError, FactoryError, RegistryError) as error:
        kind = getattr(error, "kind", type(error).__name__)
        print(f"{kind}: {getattr(error, 'message', error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what is finished stays finished, run the same command again for the rest", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
