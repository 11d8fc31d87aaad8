"""A budget goes in, a published model comes out: the real flow, the real DVC, a tiny elastic student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from slm_registry import Registry

from pipelines.exploring.front import read_front
from tests.project import make_project, run
from tests.recipes import BY_BUDGET

#: Two parts, of all layers and of none, in one quantization: every export costs seconds.
SMALL: dict[str, Any] = {
    "distill__student": BY_BUDGET["distill__student"] | {"layers": [[0, 1, 2]], "intermediate_sizes": [32]},
    "explore": BY_BUDGET["explore"]
    | {"quantizations": {"int8": {"technique": "dynamic_int8", "per_channel": True, "embeddings": None}}},
}


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("budget") / "project", **BY_BUDGET | SMALL)
    shown = run(project, "flows", "explore", "tiny").stdout.splitlines()
    heads = next(at for at, line in enumerate(shown) if "quantization" in line)
    rows = [line.split("\t") for line in shown[heads + 1 : heads + 3]]
    times = [float(row[7]) for row in rows]
    assert [row[1] for row in rows] == ["none", "0,1,2"] and times == sorted(times)
    assert shown[-1] == "page       build/tiny/front/front.html"
    return project


def test_exploring_stops_at_the_front(explored: Path) -> None:
    assert {path.name for path in (explored / "build" / "tiny" / "front").iterdir()} == {
        "points.parquet",
        "teacher.npy",
        "quantizations.json",
        "teacher.json",
        "target.json",
        "front.png",
        "front.html",
    }
    assert not (explored / "build" / "tiny" / "pruned").exists()


def test_a_budget_nobody_can_meet_fails_with_the_nearest_and_publishes_nothing(explored: Path) -> None:
    done = run(explored, "flows", "build", "tiny", "--budget", "1kB", "--publish", "store", check=False)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "no point holds max_bytes 1,000 bytes" in done.stdout + done.stderr
    assert "Nearest: " in done.stdout + done.stderr
    assert not (explored / "store").exists() or not list(Registry(str(explored / "store")).models())


def test_the_cheapest_point_is_built_and_published(explored: Path) -> None:
    done = run(explored, "flows", "build", "tiny", "--budget", "300kB 60pt", "--publish", "store")
    assert "published  tiny" in done.stdout
    points = read_front(explored / "build" / "tiny" / "front").points
    lineage = json.loads((explored / "build" / "tiny" / "bundle" / "lineage.json").read_text(encoding="utf-8"))
    chosen = next(entry for entry in lineage["stages"] if entry["stage"] == "prune")["chosen"]
    assert chosen["layers"] == "" and chosen["bytes"] == min(point.bytes for point in points)
    report = (explored / "build" / "tiny" / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "Chosen from" in report and "chosen: " in report
    metrics = json.loads((explored / "build" / "tiny" / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["model"]["bytes"] <= 300_000
    status = json.loads(run(explored, "dvc", "status", "--json").stdout)
    assert status == {}
