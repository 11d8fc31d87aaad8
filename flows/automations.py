"""What Prefect's server does by itself when something happens to a run of ours: put there once, replaced when put there again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import PREFECT_API_URL

from flows.errors import FlowError

FLOWS = ("build", "verify", "monitor", "follow", "gc")


def of_our_runs() -> dict[str, Any]:
    """Arguments of a trigger that looks at each run of our flows, and at nobody else's."""
    flow = {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
    return {
        "match": ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
        "match_related": ResourceSpecification.model_validate(flow),
        "for_each": {"prefect.resource.id"},
    }


def put(client: SyncPrefectClient, made: AutomationCore) -> str:
    """Have the server do this, instead of what bears its name there; the name."""
    before = client.read_automations_by_name(made.name)
    client.create_automation(made)
    for old in before:
        client.delete_automation(old.id)
    name: str = made.name
    return name


def on_server(do: Callable[[SyncPrefectClient], Sequence[str]]) -> int:
    """Put automations on the server that Prefect's settings name and print their names; the exit code, after one line where it fails."""
    if not PREFECT_API_URL.value():
        print(
            "no server is named: `export PREFECT_API_URL=http://127.0.0.1:4200/api`, or where yours is", file=sys.stderr
        )
        return 2
    try:
        with get_client(sync_client=True) as client:
            names = do(client)
    except FlowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except httpx.HTTPError as error:
        print(f"Prefect's server at {PREFECT_API_URL.value()} does not do it: {error}", file=sys.stderr)
        return 7
    print("\n".join(names))
    return 0
