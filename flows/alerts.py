"""`python -m flows.alerts TYPE/NAME`: have Prefect's server send what happens to builds to a notification block, such as slack-webhook/team.

The block holds the address, which is a secret; it is made on Prefect's page or by its command line. Run again, what was set up before is replaced.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows.automations import of_our_runs, on_server, put
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
    return [
        put(client, AutomationCore(name=f"slm-factory: {alert}", trigger=_trigger(states), actions=[send]))
        for alert, states in ALERTS.items()
    ]


def _trigger(states: Sequence[str]) -> EventTrigger:
    """A run of one of our flows reaches one of these states."""
    return EventTrigger(
        **of_our_runs(),
        expect={f"prefect.flow-run.{state}" for state in states},
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
    return on_server(lambda client: set_up(client, given.block))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
