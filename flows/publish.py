"""The steps after the gate, in this order: outputs to DVC's remote, the record into git, the bundle into the registry, the alias.

Each can be done again without effect, so a build that was killed after any of them is finished by the next one. `dvc repro` alone never
gets here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State
from prefect.tasks import Task
from slm_registry import Registry
from slm_registry.errors import NotFoundError, UnreachableError

from flows import artifacts, child, history, record
from flows.errors import Transient
from flows.graph import repository_lock
from flows.publication import Publication
from flows.results import result_rows
from flows.stage import RETRY_DELAYS, child_environment
from flows.transcript import Transcript
from pipelines.errors import TransientError

#: How each of these steps is tried again.
AGAIN: dict[str, Any] = {"cache_policy": NO_CACHE, "retries": len(RETRY_DELAYS), "retry_delay_seconds": RETRY_DELAYS}


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed try deserves another: only what did not answer, or was in use."""
    return isinstance(state.result(raise_on_failure=False), UnreachableError | Transient | TransientError)


def check_destination(url: str, model: str, alias: str) -> None:
    """Ask the store one question before any work: a wrong address, alias or credential need not wait for a trained model.

    Raises slm_registry's UsageError and StoreError.
    """
    with suppress(NotFoundError):
        Registry(url).resolve(f"{model}@{alias}")


@task(name="push", task_run_name="push · {model}", retry_condition_fn=may_pass, **AGAIN)  # type: ignore[untyped-decorator]  # Prefect is not followed by mypy
def push_outputs(model: str, root: Path, stages: Sequence[str]) -> None:
    """Push the stages' outputs to DVC's default remote, and look for every file there.

    Raises a StageError where the remote refuses, does not answer, or lacks a file afterwards.
    """
    transcript, logger = Transcript("push"), get_run_logger(model=model, stage="push")

    def each(line: str) -> None:
        if transcript.read(line):
            logger.info(line)

    command = [sys.executable, "-m", "flows.remote", *stages]
    if code := child.run(command, cwd=root, env=child_environment(), stop=threading.Event(), each=each):
        raise transcript.error(code)
    names = "\n".join(f"* `{name}`" for name in stages)
    artifacts.leave("push", model, f"On DVC's remote, every file of:\n\n{names}", f"{model}: outputs on DVC's remote")


@task(name="commit", task_run_name="commit · {model}", retry_condition_fn=may_pass, **AGAIN)  # type: ignore[untyped-decorator]
def commit_build(
    model: str, root: Path, branch: str, bundle: Path, metrics: Path, push_to: str | None, head: str
) -> str:
    """Commit the build's record to a branch, and push that where a git remote is named; the commit. `head` is what the build began from.

    Raises HistoryError where git refuses, TransientError where its remote does not answer.
    """
    message = message_of(model, root / bundle, record.read_json(root / metrics))
    with repository_lock(root):
        done = history.commit_record(root, branch, message, head, push_to)
    if push_to:
        history.push_branch(root, push_to, done.branch)
    word = "committed" if done.created else "already committed"
    text = f"dvc.lock: {word} as {done.commit[:12]} on {done.branch}{f', pushed to {push_to}' if push_to else ''}"
    get_run_logger(model=model, stage="commit").info("%s", text)
    artifacts.leave("commit", model, f"{text}\n\n```\n{message}\n```", f"{model}: the build's record in git")
    return done.commit


def message_of(model: str, bundle: Path, metrics: Any) -> str:
    """A commit message: what the model costs and reaches beside its teacher, and what it was made from."""
    made = record.made_from(bundle)
    teacher = made["teacher"]
    lines = [
        *(f"{words}: {model_s} (teacher {teacher_s})" for words, teacher_s, model_s, _ in result_rows(metrics)),
        "",
        f"data {made['data_sha256']}",
        *(f"teacher {key} {teacher[key]}" for key in sorted(teacher) if isinstance(teacher[key], str)),
        *(f"{name} {version}" for name, version in sorted(made["environment"].items()) if isinstance(version, str)),
    ]
    return "\n".join([f"Build {model}", "", *lines])


@task(name="publish", task_run_name="publish · {model}", retry_condition_fn=may_pass, **AGAIN)  # type: ignore[untyped-decorator]
def publish_bundle(
    model: str, url: str, alias: str, root: Path, bundle: Path, metrics: Path, commit: str | None
) -> Publication:
    """Publish the built bundle with its record and point the alias at it; the same bundle twice is one version. An alias that pointed at it
    before, and was moved by somebody, stays where it is.

    `commit` is the one that holds dvc.lock, where it was committed. Raises PublishError where the record is incomplete, slm_registry's
    errors where the store refuses.
    """
    with repository_lock(root):
        facts = record.lineage(root, model, root / bundle, root / metrics, commit)
    registry, reason = Registry(url), "built by flow"
    done = registry.publish(root / bundle, model, lineage=facts, reason=reason)
    if done.created or not _pointed(registry, model, alias, done.version):
        registry.alias(model, alias, done.version, reason=reason)
        pointed = done.version
    else:
        pointed = registry.resolve(f"{model}@{alias}").version
    word = "published" if done.created else "already there, nothing published twice"
    at = alias if pointed == done.version else f"{alias} (which somebody moved to {pointed})"
    text = f"{model} {done.version} ({done.digest}) in {url} as {at}: {word}"
    get_run_logger(model=model, stage="publish").info("%s", text)
    artifacts.leave("publish", model, text, f"{model}: what stands in the registry")
    return Publication(url, model, done.version, done.digest, done.created, alias, pointed)


def _pointed(registry: Registry, model: str, alias: str, version: str) -> bool:
    """Whether an alias has pointed at a version at any time."""
    entries = (entry.details for entry in registry.log(model))
    return any(found.get("alias") == alias and found["version"] == version for found in entries)
