"""What a stage leaves on its task's page: read from files of its own making, and from a real server's artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows import stage_page
from flows.graph import Node
from flows.stage_page import Gauge, page_of, spark
from flows.transcript import Used
from pipelines.curves import write_curve
from pipelines.techniques.course import EpochRecord
from tests.flows.toy import wait_for


def node(*outs: str) -> Node:
    return Node("distill@alpha", "Train the student", (), tuple(map(Path, outs)), (), False, True)


def test_the_page_tells_outputs_and_curves(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "model").write_bytes(b"12345")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    losses = [(1, 0.9, 0.5), (2, 0.4, 0.75), (3, 0.1, 0.875)]
    write_curve(tmp_path / "curve.csv", [EpochRecord("distill", at, 1.0, loss, right) for at, loss, right in losses])
    page = page_of(node("student", "other.csv", "curve.csv"), tmp_path, "built", Used(2.0, 3.5, 100.0))
    assert page.startswith("**distill@alpha**: built, used 2.0 s, 3.5 s of processor time, 100 MB of memory at most.")
    assert f"| [student]({(tmp_path / 'student').as_uri()}) | 5 |" in page
    assert page.count("| training |") == 1, "a file that is no loss curve is none"
    assert page.endswith("| distill | 3 | 0.9000 to 0.1000 | █▄▁ | 0.8750 |")


def test_a_curve_without_an_epoch_and_an_output_that_is_not_there(tmp_path: Path) -> None:
    write_curve(tmp_path / "curve.csv", [])
    page = page_of(node("gone", "curve.csv"), tmp_path, "restored", None)
    assert page.startswith("**distill@alpha**: restored.")
    assert page.splitlines()[4].endswith("gone) | 0 |")
    assert "training" not in page


def test_equal_numbers_have_equal_bars() -> None:
    assert spark([0.5, 0.5]) == "▁▁"


@pytest.mark.usefixtures("api")
def test_the_bar_follows_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's own lines move the bar of its task; lines of another kind do not."""
    monkeypatch.setattr(stage_page, "TICK", 0.1)

    def bar() -> tuple[float, str] | None:
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["progress-distill-alpha"]))
            )
        return (float(found[0].data), str(found[0].description)) if found else None  # type: ignore[arg-type]

    @task
    def stage() -> None:
        with Gauge(node()) as gauge:
            gauge.read("distill: epoch 1: loss 0.5, validation 0.4, accuracy 0.9")
            gauge.read("distill: 10/40, about 30 s left")
            assert wait_for(bar) == (25.0, "distill@alpha: distill")
            gauge.read("recovery: 30/40, about 10 s left")
            wait_for(lambda: bar() == (75.0, "distill@alpha: recovery"))
        assert wait_for(bar) == (100.0, "distill@alpha: recovery"), "done"

    @flow
    def whole() -> None:
        stage()

    whole()


@pytest.mark.usefixtures("api")
def test_a_server_that_is_away_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(stage_page, "create_progress_artifact", refuse)
    monkeypatch.setattr(stage_page, "TICK", 0.1)

    @task
    def stage() -> str:
        with Gauge(node()) as gauge:
            gauge.read("distill: 10/40, about 30 s left")
        return "went on"

    @flow
    def whole() -> str:
        done: str = stage()
        return done

    assert whole() == "went on"
