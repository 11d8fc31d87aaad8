"""Rates and retries against a clock that the test moves, and parallel requests against a real endpoint."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pipelines.config import Retries
from pipelines.data.clean import Split
from pipelines.errors import RecipeError
from pipelines.remote_teacher import ask_teacher
from pipelines.remote_teacher.budget import Budget
from pipelines.remote_teacher.patience import Clock, Failure, GivenUp, Pace, Stopped, persist, seconds_of
from tests.openai_server import OpenAIServer
from tests.pipelines.remote_teacher.conftest import FastClock, teacher

MANY = Split([f"row {number}" for number in range(24)])


def test_requests_begin_at_the_rate_of_the_recipe() -> None:
    clock, begun = FastClock(), []
    pace = Pace(120, clock)
    for _ in range(5):
        pace.wait()
        begun.append(clock.now())
        clock.time += 0.1  # the request itself
    assert begun == pytest.approx([0, 0.5, 1.0, 1.5, 2.0])


def test_a_held_pace_lets_nobody_begin_and_then_keeps_the_rate() -> None:
    clock = FastClock()
    pace = Pace(60, clock)
    pace.wait()
    pace.hold(30)
    begun = []
    for _ in range(3):
        pace.wait()
        begun.append(clock.now())
    assert begun == pytest.approx([30, 31, 32])


def test_one_who_waits_already_is_held_too() -> None:
    class Held(FastClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.time == 1:
                pace.hold(10)

    clock = Held()
    pace = Pace(60, clock)
    pace.wait()
    assert clock.now() == 0
    pace.wait()
    assert clock.now() == 11


def test_back_off_doubles_up_to_a_minute_and_ends_after_so_many_seconds() -> None:
    clock, tries = FastClock(), []

    def attempt() -> None:
        tries.append(clock.now())
        raise Failure("busy")

    with pytest.raises(GivenUp, match=r"busy; a wait of 60 s would pass teach\.retries\.seconds \(200\)"):
        persist(attempt, lambda failure: None, Retries(tries=50, seconds=200), clock, draw=lambda: 1.0)
    assert clock.slept == [1, 2, 4, 8, 16, 32, 60, 60] and tries[-1] <= 200


def test_patience_is_counted_from_the_first_failure() -> None:
    clock = FastClock()

    def attempt() -> str:
        clock.time += 1000
        if clock.time < 1500:
            raise Failure("slow")
        return "there"

    assert persist(attempt, lambda failure: None, Retries(tries=2, seconds=10), clock, draw=lambda: 0.0) == "there"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("12", 12), (" 3 ", 3), ("soon", None), ("-4", None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0)],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header) == seconds


def test_stopping_wakes_sleepers() -> None:
    clock, woken = Clock(), threading.Event()

    def sleep() -> None:
        with pytest.raises(Stopped):
            clock.sleep(60)
        woken.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    clock.stop()
    thread.join(timeout=5)
    assert woken.is_set()


def test_as_many_at_once_as_the_recipe_says(web: OpenAIServer, root: Path) -> None:
    def slow(text: str) -> str:
        time.sleep(0.05)
        return "ok"

    web.behaviour = slow
    ask_teacher(teacher(web, parallel=6), MANY, root, root / "out", Clock())
    assert 2 < web.most <= 6 and set(web.asked.values()) == {1} and len(web.asked) == 24


def test_the_rate_holds_across_threads(web: OpenAIServer, root: Path) -> None:
    ask_teacher(teacher(web, parallel=6, requests_per_minute=60 / 0.04), MANY, root, root / "out", Clock())
    assert web.begun[-1] - web.begun[0] >= 0.6 * 23 * 0.04, "a slow first request may shorten it"


def test_one_failure_ends_all_threads_and_keeps_their_answers(web: OpenAIServer, root: Path) -> None:
    def slow(text: str) -> str:
        time.sleep(0.0 if text == "row 9" else 0.05)
        return "400" if text == "row 9" else "ok"

    web.behaviour = slow
    with pytest.raises(Exception, match="answered 400 to training row 9"):
        ask_teacher(teacher(web, parallel=4), MANY, root, root / "out", Clock())
    assert sum(web.asked.values()) < 20
    web.behaviour = lambda text: "ok"
    ask_teacher(teacher(web, parallel=4), MANY, root, root / "out", Clock())
    assert web.asked["row 9"] == 2 and sum(web.asked.values()) == 25


def test_threads_share_one_budget(web: OpenAIServer, root: Path) -> None:
    web.usage = {"prompt_tokens": 100, "completion_tokens": 100}  # 0.0003 each, estimated at about 0.00011
    with pytest.raises(RecipeError, match="may cost"):
        ask_teacher(teacher(web, parallel=6, max_cost=0.003), MANY, root, root / "out", Clock())
    # 6 of these may have been set aside at the estimate when the money ran out; none begins after.
    assert sum(web.asked.values()) * 0.0003 <= 0.003 + 6 * 0.0002


def test_money_under_way_is_waited_for(web: OpenAIServer) -> None:
    budget, done = Budget(teacher(web, max_cost=1.0), 0.0), threading.Event()
    budget.reserve(0.6)

    def second() -> None:
        budget.reserve(0.6)
        done.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not done.wait(0.1)
    budget.settle(0.6, 0.1)
    thread.join(timeout=5)
    assert done.is_set() and budget.spent == pytest.approx(0.1)
