"""`python -m flows.alerts TYPE/NAME`: have Prefect's server send what happens to builds to a notification block, such as slack-webhook/team.

The block holds the address, which is a secret; it is made on Prefect's page or by its command line. Run again, what was set up before is replaced.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.build import GATE_FAILED, PUBLISHED
from flows.errors import FlowError
from flows.monitor import DRIFTED
from flows.verify import DIFFERENT
from pipelines.environment import disable_telemetry

#: What is told -> the names of the states of runs that mean it.
ALERTS = {
    "published": (PUBLISHED,),
    "gate failed": (GATE_FAILED,),
    "failed": ("Failed", "Crashed", "TimedOut"),
    "drifted": (DRIFTED,),
    "other bytes": (DIFFERENT,),
}
FLOWS = ("build", "verify", "monitor", "follow", "gc")
SUBJECT = "{{ flow_run.name }}: {{ flow_run.state.name }}"
BODY = "{{ flow_run.state.message }}\n\n{{ flow_run|ui_url }}"


def set_up(client: SyncPrefectClient, block: str) -> list[str]:
    """Make or replace one automation for each alert; their names. Raises FlowError where there is no such block."""
    kind, _, name = block.partition("/")
    if not kind or not name:
        raise FlowError(f"{block}: not TYPE/NAME, such as slack-webhook/team")
    try:
        found = client.read_block_document_by_name(name, kind)
    except ObjectNotFound as error:
        raise FlowError(
            f"{block}: no such block on this server; make one (`prefect block types ls` has the types), then name it TYPE/NAME"
        ) from error
    send = SendNotification(block_document_id=found.id, subject=SUBJECT, body=BODY)
    names = []
    for alert, states in ALERTS.items():
        made = AutomationCore(name=f"slm-factory: {alert}", trigger=_trigger(states), actions=[send])
        before = client.read_automations_by_name(made.name)
        client.create_automation(made)
        for old in before:
            client.delete_automation(old.id)
        names.append(made.name)
    return names


def _trigger(states: Sequence[str]) -> EventTrigger:
    """A run of one of our flows reaches one of these states."""
    return EventTrigger(
        match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification.model_validate(
            {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
        ),
        expect={f"prefect.flow-run.{state}" for state in states},
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )


def main(argv: Sequence[str]) -> int:
    """Set them up on the server that Prefect's settings name; the exit code."""
    disable_telemetry()
    parser = argparse.ArgumentParser(prog="python -m flows.alerts", description=__doc__)
    parser.add_argument(
        "block", metavar="TYPE/NAME", help="a notification block of the server, such as slack-webhook/team"
    )
    given = parser.parse_args(argv)
    if not PREFECT_API_URL.value():
        print(
            "no server is named: `export PREFECT_API_URL=http://127.0.0.1:4200/api`, or where yours is", file=sys.stderr
        )
        return 2
    try:
        with get_client(sync_client=True) as client:
            names = set_up(client, given.block)
    except FlowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except httpx.HTTPError as error:
        print(f"Prefect's server at {PREFECT_API_URL.value()} does not do it: {error}", file=sys.stderr)
        return 7
    print("\n".join(names))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
