"""The watch over a served classifier: real registry, real prediction log, real Prefect; what it says and what it starts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, State
from slm_registry import Registry
from slm_registry.errors import NotFoundError
from slm_registry.runtime.text_classification import Prediction
from slm_registry.serving.predictionlog import PredictionLog

from flows.errors import GraphError
from flows.monitor import DRIFTED, FEW, STEADY, Watched, monitor
from pipelines.drift import sample_of, write_reference
from pipelines.errors import DataError, ModelError

pytestmark = pytest.mark.usefixtures("api")
SHORT, LONG = "where is my parcel", "I have been waiting for this parcel for ever so long and nobody can tell me where"


@flow
def rebuild() -> None:
    """What drift is to start."""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A folder with a registry, in it one version that was measured on short texts, and an empty log."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text("{}")
    seen = [
        {"length": len(SHORT) + at % 7, "words": 4, "pieces": 6, "probability": 0.8 + at % 10 / 100, "label": "a"}
        for at in range(300)
    ]
    write_reference(bundle, sample_of(seen))
    Registry(tmp_path / "store").publish(bundle, "m", lineage={}, alias="production")
    (tmp_path / "log").touch()
    return tmp_path


def predict(served: Path, texts: Sequence[str]) -> None:
    """Log predictions of the version as the server does."""
    found = Registry(served / "store").resolve("m@production")
    predictions = [Prediction("a", 0.8 + at % 10 / 100) for at in range(len(texts))]
    pieces = [len(text.split()) * 3 // 2 for text in texts]
    PredictionLog(served / "log").write(found, texts, pieces, predictions)


def watch(served: Path, **asked: Any) -> State[Any]:
    state: State[Any] = monitor("m", str(served / "store"), str(served / "log"), return_state=True, **asked)
    return state


def short(count: int) -> list[str]:
    return [SHORT + "?" * (at % 7) for at in range(count)]


def test_few_rows_say_nothing_and_the_same_texts_are_steady(served: Path, caplog: pytest.LogCaptureFixture) -> None:
    predict(served, short(150))
    state = watch(served)
    assert (state.name, state.is_completed()) == (FEW, True) and "150 predictions: 200 are needed" in str(state.message)
    predict(served, short(100))
    state = watch(served)
    watched = state.result(raise_on_failure=False)
    assert state.name == STEADY and isinstance(watched, Watched)
    assert (watched.rows, watched.drifted, watched.build) == (250, [], None)
    said = [record for record in caplog.records if "drifted no" in record.message]
    assert {record.__dict__["model"] for record in said} == {"m"}, "a field of each, for machines that read logs"


def test_drift_starts_one_build_of_a_version_however_often_it_is_seen(served: Path) -> None:
    rebuild.to_deployment("m").apply()
    predict(served, short(300) + [LONG] * 300)
    states = [watch(served, rows=300, build="rebuild/m") for _ in range(2)]
    assert [state.name for state in states] == [DRIFTED, DRIFTED]
    found = [state.result(raise_on_failure=False) for state in states]
    assert [[one.feature for one in watched.drifted] for watched in found] == [["length"], ["length"]]
    names = {watched.build for watched in found}
    assert len(names) == 1 and names == {run.name for run in asyncio.run(_runs())}
    assert f"; rebuild/m was started as {names.pop()}" in str(states[0].message)


@pytest.mark.parametrize(
    ("ended", "again"), [(Cancelled, True), (Crashed, True), (Failed, False), (Completed, False), (Running, False)]
)
def test_a_build_that_was_cancelled_or_lost_is_started_again_and_no_other(
    served: Path, ended: Callable[[], State[Any]], again: bool
) -> None:
    rebuild.to_deployment("m").apply()
    predict(served, [LONG] * 300)
    first = watch(served, build="rebuild/m").result(raise_on_failure=False).build
    asyncio.run(_end(first, ended()))
    then = [watch(served, build="rebuild/m").result(raise_on_failure=False).build for _ in range(2)]
    assert len({first, *then}) == 1 + again and then[0] == then[1]


async def _end(name: str, state: State[Any]) -> None:
    async with get_client() as client:
        (run,) = [run for run in await _runs() if run.name == name]
        await client.set_flow_run_state(run.id, state, force=True)


async def _runs() -> list[Any]:
    async with get_client() as client:
        named = DeploymentFilter(name=DeploymentFilterName(any_=["m"]))
        return list(await client.read_flow_runs(deployment_filter=named))


def test_a_build_that_nobody_deployed_is_one_clear_error(served: Path) -> None:
    predict(served, [LONG] * 300)
    state = watch(served, build="build/none")
    error = state.result(raise_on_failure=False)
    assert state.is_failed() and isinstance(error, GraphError) and "no deployment build/none" in str(error)


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ({"alias": "candidate"}, NotFoundError, "candidate"),
        ({"alias": "1.0.0"}, DataError, "line 1: no prediction"),
    ],
)
def test_what_cannot_be_watched_is_one_clear_error(
    served: Path, asked: dict[str, Any], kind: type[Exception], message: str
) -> None:
    (served / "log").write_text("not JSON\n")
    error = watch(served, **asked).result(raise_on_failure=False)
    assert isinstance(error, kind) and message in str(error)


def test_a_version_from_before_there_were_references_is_named(served: Path) -> None:
    (served / "bundle" / "reference.json").unlink()
    (served / "bundle" / "config.json").write_text(json.dumps({"other": 1}))
    Registry(served / "store").publish(served / "bundle", "m", lineage={}, alias="production")
    error = watch(served).result(raise_on_failure=False)
    assert isinstance(error, ModelError) and "build and publish the model again" in str(error)
