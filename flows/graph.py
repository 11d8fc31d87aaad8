"""The graph as DVC holds it, and what DVC would run and why. Read-only: nothing is kept here, and no edge is written here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.errors import GraphError
from flows.indexing import index_for, place_of

ReasonKind = Literal[
    "never run",
    "command changed",
    "dependency changed",
    "parameter changed",
    "output missing",
    "output changed",
    "always runs",
    "upstream runs",
]


@dataclass(frozen=True)
class Node:
    """One DVC stage. Paths are relative to the project's root, as dvc.yaml writes them."""

    name: str
    description: str
    upstream: tuple[str, ...]
    outs: tuple[Path, ...]
    metrics: tuple[Path, ...]
    #: Whether it is data that DVC imported from elsewhere, and can look for anew.
    imported: bool
    #: Whether it trains, as `meta` in dvc.yaml says.
    trains: bool

    @property
    def stage(self) -> str:
        """`distill` of `distill@support-intents`."""
        return self.name.partition("@")[0]

    @property
    def model(self) -> str:
        """`support-intents` of `distill@support-intents`; empty for a stage that belongs to no model."""
        return self.name.partition("@")[2]

    @property
    def speaker(self) -> dict[str, str]:
        """Who speaks in a log record, beside the run and the task that Prefect names: fields of it, for logs that are read by machines."""
        return {"model": self.model, "stage": self.stage}


@dataclass(frozen=True)
class Reason:
    """Why a stage would run: the kind, and the file, key or stage at fault."""

    kind: ReasonKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


NEVER_RUN = Reason("never run")


@dataclass(frozen=True)
class Step:
    """One stage of a plan; without reasons it is up to date."""

    node: Node
    reasons: tuple[Reason, ...]

    @property
    def stale(self) -> bool:
        """Whether DVC would look at running it (it may yet find that its inputs came out the same)."""
        return bool(self.reasons)


@dataclass(frozen=True)
class Plan:
    """The stages in an order in which they can run, each with the reasons to run it."""

    steps: tuple[Step, ...]

    @property
    def stale(self) -> tuple[Step, ...]:
        """The steps that would run."""
        return tuple(step for step in self.steps if step.stale)

    @property
    def edges(self) -> set[tuple[str, str]]:
        """(upstream, downstream) pairs."""
        return {(above, step.node.name) for step in self.steps for above in step.node.upstream}

    def up_to(self, stage: str, model: str) -> Plan:
        """The steps that a stage of a model needs, itself the last. Raises GraphError where the plan has no such stage."""
        nodes = {step.node.name: step.node for step in self.steps}
        if f"{stage}@{model}" not in nodes:
            raise GraphError(f"dvc.yaml: no stage {stage}@{model}; the plan holds {', '.join(nodes)}")
        return self._above([f"{stage}@{model}"])

    def before(self, name: str) -> Plan:
        """The steps that a stage of this plan needs, without itself."""
        return self._above([above for step in self.steps if step.node.name == name for above in step.node.upstream])

    def _above(self, left: list[str]) -> Plan:
        nodes = {step.node.name: step.node for step in self.steps}
        needed: set[str] = set()
        while left:
            needed.add(name := left.pop())
            left += nodes[name].upstream
        return Plan(tuple(step for step in self.steps if step.node.name in needed))

    def find(self, filename: str) -> Path | None:
        """The output of these stages that bears a file name, where exactly one does."""
        found = {path for step in self.steps for path in step.node.outs if path.name == filename}
        return found.pop() if len(found) == 1 else None

    def out(self, filename: str) -> Path:
        """As `find`, but GraphError where there is none."""
        found = self.find(filename)
        if found is None:
            raise GraphError(
                f"dvc.yaml: one output named {filename!r} is needed; the stages of this model have none, or several"
            )
        return found

    def metrics_file(self) -> Path | None:
        """The metrics file of the last stage that writes one."""
        return next((step.node.metrics[-1] for step in reversed(self.steps) if step.node.metrics), None)


def find_root(start: Path) -> Path:
    """The DVC project that a folder belongs to; GraphError where it belongs to none."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return Path(Repo.find_root(os.fspath(start)))
    except NotDvcRepoError as error:
        raise GraphError(
            f"{start}: no .dvc folder here or above; run from the project's folder, or `dvc init` it first"
        ) from error


def make_plan(root: Path, model: str | None = None) -> Plan:
    """What DVC would run for one model (or for all) and why, from one look under DVC's lock.

    Raises GraphError where dvc.yaml cannot be read or holds no stage of the model.
    """
    with _index(root, model) as (stages, graph):
        upstream = {
            stage: list(graph.successors(stage)) for stage in stages
        }  # DVC's edges point from a stage to what it needs
        wanted = _in_order(_targets(stages, model), upstream)
        steps: list[Step] = []
        stale: set[str] = set()
        values = Values()
        for stage in wanted:
            node = _node(stage, sorted(map(_name, upstream[stage])), root)
            reasons = tuple(_own_reasons(stage, root, values))
            if NEVER_RUN not in reasons:
                reasons += tuple(Reason("upstream runs", name) for name in node.upstream if name in stale)
            if reasons:
                stale.add(node.name)
            steps.append(Step(node, reasons))
    return Plan(tuple(steps))


@contextmanager
def repository_lock(root: Path) -> Iterator[Any]:
    """Hold DVC's lock of a project, or wait for it: dvc.lock is not written atomically. Yields DVC's `Repo`.

    Raises GraphError where DVC cannot read the project.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo

    try:
        with Repo(os.fspath(root), _wait_for_lock=True) as repo, lock_repo(repo):
            yield repo
    except DvcException as error:
        raise GraphError(_one_line(error)) from error


@contextmanager
def _index(root: Path, model: str | None) -> Iterator[tuple[list[Any], Any]]:
    """DVC's stages and graph, read while its repository lock is held: dvc.lock is not written atomically."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo

    try:
        with Repo(os.fspath(root), _wait_for_lock=True) as repo, lock_repo(repo):
            index = index_for(repo, model)
            yield list(index.stages), index.graph
    except DvcException as error:
        raise GraphError(_one_line(error)) from error


def _one_line(error: BaseException) -> str:
    """DVC's message with that of its cause: the outer one alone often only says that something is invalid."""
    parts = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
    return ": ".join(" ".join(part.split()) for part in parts if part)


def _targets(stages: Sequence[Any], model: str | None) -> list[Any]:
    if model is None:
        return list(stages)
    found = [stage for stage in stages if _name(stage).endswith(f"@{model}")]
    if not found:
        models = sorted({_name(stage).partition("@")[2] for stage in stages} - {""})
        raise GraphError(f"dvc.yaml: no stage of a model {model!r}; there are: {', '.join(models) or 'none'}")
    return found


def _in_order(targets: Sequence[Any], upstream: dict[Any, list[Any]]) -> list[Any]:
    """The targets and all they need, each after what it needs."""
    ordered: dict[Any, None] = {}

    def visit(stage: Any) -> None:
        if stage in ordered:
            return
        for above in sorted(upstream[stage], key=_name):
            visit(above)
        ordered[stage] = None

    for target in targets:
        visit(target)
    return list(ordered)


def _name(stage: Any) -> str:
    """How a stage is addressed from the project's root; DVC's own `addressing` depends on the current folder."""
    from dvc.dvcfile import PROJECT_FILE

    file = Path(stage.path_in_repo).as_posix()
    name = getattr(stage, "name", None)
    if not name:
        return file  # a .dvc file is one stage
    return str(name) if file == PROJECT_FILE else f"{file}:{name}"


def _node(stage: Any, upstream: Sequence[str], root: Path) -> Node:
    def local(outs: Sequence[Any]) -> tuple[Path, ...]:
        return tuple(Path(place_of(out, root)) for out in outs if out.is_in_repo)

    metrics = [out for out in stage.outs if out.metric]
    trains = bool((stage.meta or {}).get("trains"))
    return Node(
        _name(stage), stage.desc or "", tuple(upstream), local(stage.outs), local(metrics), stage.is_import, trains
    )


class Values:
    """What stands in files of parameters, each read once for a plan: DVC reads it anew for each stage, seconds where it holds many models."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, Any]] = {}

    def of(self, dependency: Any) -> dict[str, Any]:
        """The values that a stage tracks, by their dotted keys; all of a file that is tracked as a whole."""
        from dvc.utils.serialize import load_path

        path = dependency.fs_path
        if path not in self._files:
            self._files[path] = load_path(path, dependency.repo.fs)
        if not dependency.params:
            return self._files[path]
        found = {}
        for key in dependency.params:
            with suppress(KeyError):
                found[key] = _value_at(self._files[path], key)
        return found


def _value_at(values: Any, key: str) -> Any:
    """What DVC reads at a dotted key; it walks over the whole file for that, which only the rarer keys (of lists, with wildcards) need."""
    import dpath

    found = values
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found or set(part) & set("*?[]"):
            return dpath.get(values, key, separator=".")
        found = found[part]
    return found


def _own_reasons(stage: Any, root: Path, values: Values) -> Iterator[Reason]:
    """What DVC's own status says of one stage, in our words."""
    if stage.is_callback or stage.always_changed:
        yield Reason("always runs")
    if _never_run(stage):
        yield NEVER_RUN
        return
    if stage.changed_stage():
        yield Reason("command changed")
    if not stage.frozen:
        for dependency in stage.deps:
            yield from _dependency_reasons(dependency, root, values)
    for out in stage.outs:
        for state in out.status().values():
            kind: ReasonKind = "output missing" if state == "deleted" else "output changed"
            yield Reason(kind, place_of(out, root) if state == "deleted" else f"{place_of(out, root)} ({state})")


def _never_run(stage: Any) -> bool:
    """No record in dvc.lock: nothing that the stage reads or writes has a digest yet."""
    things = [*stage.outs, *stage.deps]
    return bool(stage.cmd) and bool(things) and not any(thing.hash_info for thing in things)


def _dependency_reasons(dependency: Any, root: Path, values: Values) -> Iterator[Reason]:
    from dvc.dependency import ParamsDependency

    if isinstance(dependency, ParamsDependency) and dependency.exists and dependency.hash_info.value is not None:
        for key, change in _changed_keys(dependency.params, dependency.hash_info.value, values.of(dependency)):
            yield Reason("parameter changed", f"{key} ({change})")
        return
    for state in dependency.status().values():
        yield Reason("dependency changed", f"{place_of(dependency, root)} ({state})")


def _changed_keys(
    tracked: Sequence[str], recorded: Mapping[str, Any], values: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The single keys that differ between dvc.lock and the file; DVC itself only names the block that it tracks, and decides by that."""
    for key in tracked or sorted(recorded.keys() | values.keys()):
        if key in recorded and key in values and _plain(recorded[key]) == _plain(values[key]):
            continue
        before = dict(_flatten(recorded[key], key)) if key in recorded else {}
        now = dict(_flatten(values[key], key)) if key in values else {}
        yield from list(_differences(before, now)) or [(key, "changed" if now else "not in the file")]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in sorted(before.keys() | now.keys()):
        if key not in before:
            yield key, f"new: {now[key]!r}"
        elif key not in now:
            yield key, f"was {before[key]!r}"
        elif before[key] != now[key]:
            yield key, f"{before[key]!r} -> {now[key]!r}"


def _plain(value: Any) -> Any:
    """DVC's record has lists where a Python file of parameters has tuples."""
    return list(value) if isinstance(value, tuple) else value


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` as `("a.b", 1)`; lists are values."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}")
    else:
        yield prefix, _plain(value)
