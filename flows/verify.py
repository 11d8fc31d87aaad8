"""The flow that builds a published version again from its record, and holds the bytes against those in the registry."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed, State
from slm_registry import Registry
from slm_registry.errors import RegistryError

from flows import child, history
from flows.artifacts import key_for
from flows.console import without_tracebacks
from flows.errors import FlowError, HistoryError
from flows.graph import find_root
from flows.reproduce import rebuilt
from flows.stage import child_environment
from pipelines.bundle import DOCUMENTS
from pipelines.errors import FactoryError
from pipelines.reporting.card import environment

SAME, DIFFERENT = "Same bytes", "Other bytes"


@dataclass(frozen=True)
class Verified:
    """A version built again: path -> (digest in the registry, digest of the new build); None where a side lacks the file."""

    model: str
    version: str
    commit: str
    files: dict[str, tuple[str | None, str | None]]
    #: What the record names of its environment that is otherwise here, as `torch 2.12`.
    others: list[str]

    @property
    def different(self) -> list[str]:
        """Files whose bytes are not those that were published."""
        return [path for path, (one, two) in sorted(self.files.items()) if one != two]


@flow(name="verify", flow_run_name="verify · {model}@{alias}")  # type: ignore[untyped-decorator]  # Prefect is not followed by mypy
def verify(model: str, registry: str, alias: str = "candidate") -> State[Any]:
    """Build the published version again, from the commit in its record and without anything built before, and compare the bytes.

    Args:
        model: Name of the published model; its recipe is the commit's.
        registry: Registry that it is in, a folder or s3://BUCKET/PREFIX.
        alias: Alias, or version, that is built again.
    """
    try:
        with child.ends_with_its_worker(), without_tracebacks(FlowError, FactoryError, RegistryError):
            found = _verify(find_root(Path.cwd()), model, registry, alias)
    except (FlowError, FactoryError, RegistryError) as error:
        return Failed(message=f"{type(error).__name__}: {error}", data=error)
    _show(found)
    what = f"{model} {found.version} from {found.commit[:12]}"
    if found.different:
        here = f"; its record has {', '.join(found.others)}, and here they are others" if found.others else ""
        message = f"{what}: {', '.join(found.different)} came out with other bytes{here}"
        return Failed(name=DIFFERENT, message=message, data=found)
    return Completed(name=SAME, message=f"{what}: {len(found.files)} files, byte for byte", data=found)


def _verify(root: Path, model: str, registry: str, alias: str) -> Verified:
    details = Registry(registry).show(f"{model}@{alias}")
    commit = commit_of(root, f"{model} {details.version}", details.lineage.get("git"))
    published = {file.path: file.digest.removeprefix("sha256:") for file in details.files if file.path not in DOCUMENTS}
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        again = rebuilt(root, commit, model, Path(folder) / "clone", partial(_run, model))
    files = {path: (published.get(path), again.get(path)) for path in published.keys() | again.keys()}
    if not files:
        raise HistoryError(f"{model} {details.version} holds no file of a model, so there is nothing to compare")
    recorded, here = details.lineage.get("environment"), environment()
    known = recorded if isinstance(recorded, dict) else {}
    others = [f"{name} {value}" for name, value in sorted(known.items()) if here.get(name) != value]
    return Verified(model, details.version, commit, files, others)


def commit_of(root: Path, what: str, recorded: Any) -> str:
    """The commit that a record names. Raises HistoryError where there is none, or not here."""
    git = recorded if isinstance(recorded, dict) else {}
    commit = git.get("commit")
    if not isinstance(commit, str) or git.get("dirty"):
        raise HistoryError(
            f"{what} was built from what was not committed, so nobody can build it again; `python -m flows build ... --commit HEAD` "
            "makes versions that can be verified"
        )
    if not history.has_commit(root, commit):
        raise HistoryError(f"{what} was built from commit {commit}, which is not in {root}; `git fetch` it first")
    return commit


def _run(model: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """As a stage is run: lines into the log, and nothing left when the flow ends."""
    env = child_environment() | {key: environment[key] for key in ("PYTHONPATH",) if key in environment}
    return child.run(
        command, cwd=folder, env=env, stop=threading.Event(), each=get_run_logger(model=model, stage="verify").info
    )


def _show(found: Verified) -> None:
    rows = [f"| `{path}` | {one or 'absent'} | {two or 'absent'} |" for path, (one, two) in sorted(found.files.items())]
    head = f"{found.model} {found.version}, built again from commit {found.commit}.\n\n| file | published | built again |\n|---|---|---|"
    create_markdown_artifact(
        "\n".join([head, *rows]),
        key=key_for("verify", found.model),
        description=f"Bytes of {found.model}, published and built again",
    )
