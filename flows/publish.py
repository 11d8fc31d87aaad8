"""The step after the gate: the bundle goes into the registry, then the alias moves. `dvc repro` alone never gets here."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State
from prefect.tasks import Task
from slm_registry import Registry
from slm_registry.errors import NotFoundError, UnreachableError

from flows import record


@dataclass(frozen=True)
class Publication:
    """What stands in the registry after a build. `created` is False where it stood there before."""

    url: str
    model: str
    version: str
    digest: str
    created: bool
    alias: str


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed try deserves another: only a store that did not answer."""
    return isinstance(state.result(raise_on_failure=False), UnreachableError)


def check_destination(url: str, model: str, alias: str) -> None:
    """Ask the store one question before any work: a wrong address, alias or credential need not wait for a trained model.

    Raises slm_registry's UsageError and StoreError.
    """
    with suppress(NotFoundError):
        Registry(url).resolve(f"{model}@{alias}")


@task(  # type: ignore[untyped-decorator]  # Prefect is not followed by mypy
    name="publish",
    task_run_name="publish · {model}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[3, 9],
    retry_condition_fn=may_pass,
)
def publish_bundle(model: str, url: str, alias: str, root: Path, bundle: Path, metrics: Path) -> Publication:
    """Publish the built bundle with its record and point the alias at it; the same bundle twice is one version.

    Raises PublishError where the record is incomplete, slm_registry's errors where the store refuses.
    """
    facts = record.lineage(root, model, root / bundle, root / metrics)
    done = Registry(url).publish(root / bundle, model, lineage=facts, alias=alias, reason="built by flow")
    word = "published" if done.created else "already there, nothing published twice"
    get_run_logger().info("%s %s (%s) in %s as %s: %s", model, done.version, done.digest, url, alias, word)
    return Publication(url, model, done.version, done.digest, done.created, alias)
