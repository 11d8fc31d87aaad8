"""A run whose machine is gone: a real server hears nothing of it any more, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStartTime
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from flows.build import COMPLETED, PUBLISHED
from flows.lost import MESSAGE, give_up
from tests.flows.toy import Toy, wait_for

pytestmark = pytest.mark.usefixtures("api")


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    """The server's client; what was set up is gone afterwards."""
    with get_client(sync_client=True) as client:
        yield client
        for made in client.read_automations():
            client.delete_automation(made.id)


def newest(client: SyncPrefectClient) -> FlowRun:
    """The run that began last: deployments of other tests have runs that are to begin tomorrow."""
    begun = FlowRunFilter(start_time=FlowRunFilterStartTime(is_null_=False))
    return client.read_flow_runs(flow_run_filter=begun, sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def state_of(client: SyncPrefectClient, run: FlowRun) -> tuple[str | None, str | None]:
    state = client.read_flow_run(run.id).state
    assert state
    return state.name, state.message


def test_who_is_killed_is_given_up_and_who_ended_or_lives_keeps_its_end(built: Toy, client: SyncPrefectClient) -> None:
    for _ in range(2):
        name = give_up(client, timedelta(seconds=10))
    assert len(client.read_automations_by_name(name)) == 1
    assert built.flows("build", "alpha", "--publish", "store")[0] == 0
    ended = newest(client)
    assert state_of(client, ended)[0] == PUBLISHED
    built.behave("label", "sleep 600")
    built.change("alpha", "label", "batch_size", 8)
    killed = built.start("build", "alpha")
    wait_for(lambda: "label" in built.ran(), 60)
    for process in built.processes():
        process.kill()
    killed.communicate()
    lost = newest(client)
    assert state_of(client, lost)[0] == "Running", "nobody said otherwise"
    built.behave("label", "sleep 25")
    process = built.start("build", "alpha")
    wait_for(lambda: newest(client).id != lost.id, 60)
    living = newest(client)
    wait_for(lambda: state_of(client, lost) == ("Crashed", MESSAGE), 60)
    wait_for(lambda: state_of(client, living) == ("Crashed", MESSAGE), 60)
    process.communicate()
    assert process.returncode == 0
    assert state_of(client, living)[0] == COMPLETED, "it lived"
    assert state_of(client, ended)[0] == PUBLISHED
