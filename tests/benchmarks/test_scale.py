"""What is reckoned from the measured figures, and the texts that they are measured on. The measurement itself is `make bench-scale`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scale import made_texts, paper, recipe, table
from pipelines.config import parse_params
from tests.flows import overhead
from tests.flows.toy import STAGES

FOUND = {
    "texts": 1000.0,
    "bytes": 20_000.0,
    "memory": 150.0,
    "label 1": 10.0,
    "label 2": 5.0,
    "distill 1": 100.0,
    "distill 2": 80.0,
    "explore 1": 360.0,
    "explore 2": 240.0,
    "points": 24.0,
}


def test_rates_and_gains() -> None:
    text = table(FOUND, "load average 0.10 at the start")
    assert "| texts labelled a second | 100.0 | 200.0 | 2.00x | 10, 5 |" in text
    assert "| points of a front an hour | 240.0 | 360.0 | 1.50x | 360, 240 |" in text


def test_the_paper_follows_from_the_figures() -> None:
    """10^8 texts at 100 a second are 278 hours, at 20 kB 2 TB, at 150 bytes 15 GB; 1,000 fronts of 6 minutes are 100 hours."""
    lines = paper(FOUND)
    assert "| label 100,000,000 texts | 278 hours of one core |" in lines
    assert "| one pass of an elastic student over them | 2,778 hours of one core |" in lines
    assert "| their signals | 2.00 TB of disk |" in lines
    assert "| the keys of the signals in memory | 15 GB |" in lines
    assert "| 1,000 fronts of this size | 100 hours of one core |" in lines


def test_its_recipe_is_one_and_its_texts_are_new(tmp_path: Path) -> None:
    import yaml

    block = recipe(tmp_path, 50)
    text = yaml.safe_dump({"models": {"scale": block}})
    parse_params(text, tmp_path / "params.yaml")
    made = (tmp_path / "data" / "unlabelled.txt").read_text().splitlines()
    assert len(set(made)) == 50
    assert made == made_texts(tmp_path / "data" / "rows.csv", 50), "the same each time"


def test_what_a_flow_adds_is_a_stages_share_of_the_difference() -> None:
    """The command finds in 1.2 s that nothing changed, 1.5 times as long as `dvc status`; a flow takes 5 s for it."""
    plain = {"first": 2.0, "nothing": 1.0, "run": 0.8, "again": 3.0}
    flow = {"first": 20.0, "nothing": 1.2, "run": 5.0, "again": 12.0}
    sides = (overhead.PLAIN, overhead.SERVER)
    rounds = [
        dict(zip(sides, (plain, {key: value + at for key, value in flow.items()}), strict=True)) for at in (-1, 0, 9)
    ]
    text = overhead.table(rounds, "load average 0.10 at the start")
    assert "| dvc repro | 3.0 | 0.0 | 0.00 | 1.0 |  | 2.0 |" in text
    assert f"| {overhead.SERVER} | 12.0 | 9.0 | {(7 - 2) / len(STAGES):.2f} | 1.2 | 5.0 | 20.0 |" in text
    assert "in 1.50 times the 0.8 s of `dvc status --with-deps`" in text
