"""A deployment started by another flow."""

from __future__ import annotations

from typing import Any

from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.errors import GraphError


def start_once(deployment: str, key: str) -> str:
    """Start a deployment, once for a key however often it is asked for; the name of the run. Raises GraphError where there is none."""
    try:
        run: Any = run_deployment(deployment, timeout=0, as_subflow=False, idempotency_key=key)
    except ObjectNotFound as error:
        raise GraphError(f"the server has no deployment {deployment}; `prefect deployment ls` names them") from error
    return str(run.name)
