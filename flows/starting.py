"""A deployment started by another flow."""

from __future__ import annotations

from itertools import count
from typing import Any

from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.errors import GraphError


def start_once(deployment: str, key: str) -> str:
    """Start a deployment, once for a key however often it is asked for; the name of the run. Raises GraphError where there is none.

    A run that was cancelled, since another went on for one, or lost with its machine counts for none: it is started again. One that failed
    is not: it would fail again.
    """
    for attempt in count(1):
        tried = key if attempt == 1 else f"{key}-{attempt}"
        try:
            run: Any = run_deployment(deployment, timeout=0, as_subflow=False, idempotency_key=tried)
        except ObjectNotFound as error:
            raise GraphError(
                f"the server has no deployment {deployment}; `prefect deployment ls` names them"
            ) from error
        if not (run.state.is_cancelled() or run.state.is_crashed()):
            break
    return str(run.name)
