"""The work of a stage in processes of this machine, by a real Prefect flow against a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client

from flows import clusters, fanout
from flows.clusters import Processes, cluster_of
from pipelines.bundle import sha256_of
from pipelines.errors import DivergedError, FactoryError, FanError, ModelError, ResourceError
from pipelines.exploring.building import build_chosen
from pipelines.exploring.measuring import exports_of
from pipelines.exploring.points import Point
from pipelines.exploring.units import Answering
from pipelines.exploring.workshop import Workshop
from pipelines.fanning import VARIABLE, Fan, Serial
from tests.flows.toy import REPOSITORY, environment, wait_for
from tests.flows.untaught import untaught
from tests.flows.works import Doing, Missing
from tests.recipes import BY_BUDGET, recipe

pytestmark = pytest.mark.usefixtures("api")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test machine of one core would do all in turns; and nobody is left behind."""
    monkeypatch.setattr(clusters, "_cores", lambda: 2)
    yield
    left = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
    psutil.wait_procs(left, timeout=10)
    assert not [one for one in left if one.is_running()]


def spread(body: Callable[[Fan], Any], threads: int = 1) -> Any:
    return fanout.fanned("processes:2", body, "try", threads)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def exported(fan: Fan, workshop: Workshop, place: Path) -> tuple[dict[str, str], list[list[bool]]]:
    """Digests of two parts in every quantization, and what they answer."""
    place.mkdir()
    names = list(workshop.settings.quantizations)
    with exports_of(workshop, fan, place) as exports:
        folders = exports.of(
            [(part, name) for part in (workshop.space[0], workshop.space[-1]) for name in names], "try"
        )
        answers = [right.tolist() for right in fan.map(Answering(workshop.folders[1], 1), folders)]
        return files(exports.place), answers


def test_the_same_files_answers_and_weights_in_one_process_and_in_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop, recovering = untaught(tmp_path)
    parts = [workshop.space[0], workshop.space[-1]]
    points = [a_point(part.layers, part.intermediate_size, order) for order, part in enumerate(parts)]
    budget = recipe(
        **BY_BUDGET | {"budget": BY_BUDGET["budget"] | {"max_bytes": None, "max_accuracy_loss": None}}
    ).budget
    here = exported(Serial(), workshop, tmp_path / "here")
    bundle, records, point = build_chosen(recovering, points, budget)

    monkeypatch.setenv(VARIABLE, "flows.fanout:processes:2")
    there = spread(lambda fan: exported(fan, workshop, tmp_path / "there"))
    again, records_there, point_there = build_chosen(recovering, points, budget)

    assert len(here[0]) >= 4 * 3 and there == here
    assert (records_there, point_there) == (records, point) and point == points[0] and len(records) == 2
    weights = bundle.model.state_dict()
    assert all((again.model.state_dict()[name] == weights[name]).all() for name in weights)


def a_point(layers: tuple[int, ...], width: int, order: int) -> Point:
    figures = {"bytes": 1000 + order, "p50_ms": 1.0, "p50_low": 1.0, "p50_high": 1.0, "texts_per_s": 1.0}
    accuracy = {
        "accuracy": 1.0,
        "accuracy_difference": 0.0,
        "accuracy_difference_low": 0.0,
        "accuracy_difference_high": 0.0,
    }
    estimated = {"estimated_bytes": 1000, "estimated_p50_ms": 1.0, "estimated_accuracy": 1.0, "peak_memory_bytes": 1}
    shape = {
        "layers": ",".join(map(str, layers)),
        "intermediate_size": width,
        "num_attention_heads": 4,
        "vocabulary": 0,
    }
    return Point(**shape, **figures, **accuracy, **estimated, tokens=1, quantization="int8", steady=True, on_front=True)


def test_answers_come_in_order_and_an_error_in_its_turn_with_its_own_type(tmp_path: Path, api: str) -> None:
    got: list[str] = []

    def body(fan: Fan) -> None:
        got.extend(fan.map(Doing(tmp_path), ["one", "two", "refuse", "three"]))

    with pytest.raises(ModelError, match=r"^model.onnx: differs from torch by 3.0$") as caught:
        spread(body)
    assert caught.value.exit_code == 4
    assert got == ["one done", "two done"]
    with get_client(sync_client=True) as client:
        names = {run.name for run in client.read_flow_runs(limit=50)}
    assert "try · processes:2" in names


@pytest.mark.parametrize(
    ("item", "kind", "said"),
    [
        ("diverge", DivergedError, "the loss is nan"),
        ("break", KeyError, "nobody foresaw this"),
        ("die", ResourceError, "a worker of processes:2 was killed from outside.*fewer --workers"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told_here(item: str, kind: type[Exception], said: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=said) as caught:
        spread(lambda fan: list(fan.map(Doing(tmp_path), [item])))
    if not isinstance(caught.value, FactoryError):
        assert "tests/flows/works.py" in caught.value.__notes__[0]


def test_a_worker_that_cannot_see_a_folder_names_it_and_itself() -> None:
    with pytest.raises(ModelError, match=r"/nowhere/student: no such folder.*so says the worker on .+: it must see"):
        spread(lambda fan: list(fan.map(Missing(), ["one"])))


def test_what_was_begun_for_nobody_is_ended(tmp_path: Path) -> None:
    started = time.monotonic()
    assert spread(lambda fan: next(fan.map(Doing(tmp_path), ["one", "sleep", "sleep", "sleep"]))) == "one done"
    assert time.monotonic() - started < 60


def test_no_more_at_once_than_the_cores_hold() -> None:
    assert [Processes(8).room(threads) for threads in (1, 2, 3)] == [2, 1, 1]
    assert fanout.fanned("processes:2", lambda fan: fan, "try", 2).__class__ is Serial


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stage_that_is_ended_takes_its_workers_along(number: int, tmp_path: Path) -> None:
    program = (
        "import signal, sys; from pathlib import Path; from pipelines.__main__ import _stop; from flows import clusters, fanout\n"
        "from tests.flows.works import Doing\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGTERM, _stop); clusters._cores = lambda: 2\n"
        f"    work = Doing(Path({str(tmp_path)!r}))\n"
        "    fanout.fanned('processes:2', lambda fan: list(fan.map(work, ['sleep', 'sleep'])), 'try', 1)\n"
    )
    (tmp_path / "stage.py").write_text(program)
    paths = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'registry'}"}
    process = subprocess.Popen([sys.executable, str(tmp_path / "stage.py")], env=environment() | paths)
    asleep = wait_for(lambda: [int(path.name.partition("-")[2]) for path in tmp_path.glob("asleep-*")], 60)
    process.send_signal(number)
    assert process.wait(15) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in asleep), 10)


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_package_that_is_missing_is_named_with_its_command(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{kind}", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(FanError, match=rf"prefect-{kind} is not installed; run `pip install --group {kind}` here"):
        cluster_of(f"{kind}:127.0.0.1:1")
