"""As many stages train at once as Prefect's limit allows; who waits for a place can be ended."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency

from flows.graph import make_plan
from flows.trainers import LIMIT
from tests.flows.toy import REPOSITORY, Toy, wait_for

pytestmark = pytest.mark.usefixtures("api")


@pytest.fixture
def limit(api: str) -> Iterator[str]:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
        yield LIMIT
        client.delete_global_concurrency_limit_by_name(LIMIT)


def naps(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:  # ended meanwhile
        return False
    return "nap of" in " ".join(words) and "tool.py" not in words


def naps_at_once(toy: Toy) -> int:
    """The most stages that slept at one moment, of two models built at once."""
    toy.behave("teach", "sleep 4", "alpha")
    toy.behave("teach", "sleep 4", "beta")
    builds = [toy.start("build", model) for model in ("alpha", "beta")]
    most = 0
    while any(build.poll() is None for build in builds):
        most = max(most, sum(map(naps, toy.processes())))
        time.sleep(0.05)
    assert [build.returncode for build in builds] == [0, 0], [build.communicate()[0] for build in builds]
    return most


def test_without_a_limit_both_train(toy: Toy) -> None:
    assert naps_at_once(toy) == 2


@pytest.mark.usefixtures("limit")
def test_with_a_limit_of_one_they_take_turns(toy: Toy) -> None:
    assert naps_at_once(toy) == 1


def test_who_waits_for_a_place_can_be_ended(toy: Toy, limit: str) -> None:
    with concurrency(limit):
        build = toy.start("build", "alpha")
        wait_for(lambda: "label" in toy.ran(), 60)
        time.sleep(3)  # into the second attempt
        assert build.poll() is None and "teach" not in toy.ran()
        began = time.monotonic()
        build.terminate()
        build.communicate(timeout=30)
        assert time.monotonic() - began < 10


def test_the_stages_that_train_are_those_that_say_so() -> None:
    steps = make_plan(REPOSITORY).steps
    assert {step.node.stage for step in steps if step.node.trains} == {"teach", "distill", "prune"}
