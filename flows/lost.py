"""`python -m flows.lost`: have Prefect's server give up runs whose worker or machine is gone. `make up` does it for the server that it starts.

Nobody else would: whoever is killed with its machine cannot say so, and its run would be `Running` for ever, which no alert tells and no drift starts again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.automations import of_our_runs, on_server, put
from pipelines.environment import disable_telemetry

#: A run says every three minutes (Prefect's `flows.heartbeat_frequency`) that it lives. Three of those are missed by then, and not for a
#: server that was away for a while. Of a run that lives after all the server takes its end, whatever it took it for before.
SILENCE = timedelta(minutes=10)
MESSAGE = "no sign of life of this run any more: its worker or machine is gone"


def give_up(client: SyncPrefectClient, silence: timedelta) -> str:
    """Make or replace the automation that ends a run as Crashed after so long a silence; its name."""
    trigger = EventTrigger(
        **of_our_runs(),
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},  # the next one, or the end, under whichever name it goes
        posture=Posture.Proactive,
        threshold=1,
        within=silence,
    )
    crashed = ChangeFlowRunState(state=StateType.CRASHED, message=MESSAGE)
    return put(client, AutomationCore(name="slm-factory: lost", trigger=trigger, actions=[crashed]))


def main(argv: Sequence[str]) -> int:
    """Set it up on the server that Prefect's settings name; the exit code."""
    disable_telemetry()
    argparse.ArgumentParser(prog="python -m flows.lost", description=__doc__).parse_args(argv)
    return on_server(lambda client: [give_up(client, SILENCE)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
