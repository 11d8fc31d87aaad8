"""Eight writers at one moment: one winner, one linear log, and every loser knows."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from slm_registry import Registry

from tests.registry.helpers import REPOSITORY, make_bundle
from tests.registry.machine import at_once

WRITERS = 8
ROUNDS = 3


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("bundles")
    return [str(make_bundle(root / str(number), weight=1.0 + number)) for number in range(WRITERS)]


def race(store: Path, kind: str, bundles: list[str]) -> list[dict[str, Any]]:
    driver = Path(__file__).with_name("race_driver.py")
    run = subprocess.run(
        [sys.executable, str(driver), str(store), kind, *bundles],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY / "registry"), "PATH": "", "HOME": str(store.parent)},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def winners(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["actor"] for answer in answers if answer.get("created")]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_one_version_with_eight_contents(tmp_path: Path, bundles: list[str], number: int) -> None:
    answers = race(tmp_path / "store", "version", bundles)
    (winner,) = winners(answers)
    losers = [answer for answer in answers if answer["actor"] != winner]
    assert {answer.get("error") for answer in losers} == {"ConflictError"}
    assert all(f"published by {winner} at" in answer["message"] for answer in losers)
    (entry,) = Registry(tmp_path / "store").log("m")
    assert entry.actor == winner


def test_one_version_with_one_content(tmp_path: Path, bundles: list[str]) -> None:
    answers = race(tmp_path / "store", "version", bundles[:1] * WRITERS)
    assert len(winners(answers)) == 1
    assert {answer.get("version") for answer in answers} == {"2.0.0"}
    assert len(Registry(tmp_path / "store").log("m")) == 1


def test_the_next_version_of_eight_contents(tmp_path: Path, bundles: list[str]) -> None:
    answers = race(tmp_path / "store", "next", bundles)
    assert len(winners(answers)) == WRITERS
    assert sorted(answer["version"] for answer in answers) == [f"1.0.{number}" for number in range(WRITERS)]
    entries = Registry(tmp_path / "store").log("m")
    assert [entry.details["version"] for entry in entries] == [f"1.0.{number}" for number in range(WRITERS)]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_one_alias(tmp_path: Path, bundles: list[str], number: int) -> None:
    registry = Registry(tmp_path / "store")
    for index, bundle in enumerate(bundles):
        registry.publish(bundle, "m", version=f"1.0.{index}", lineage={})
    answers = race(tmp_path / "store", "alias", bundles)
    (winner,) = winners(answers)
    assert [answer.get("error") for answer in answers].count("ConflictError") == WRITERS - 1
    assert len(registry.log("m")) == WRITERS + 1
    assert registry.resolve("m@production").version == f"1.0.{winner[1:]}"


def test_over_s3(s3_url: str, tmp_path: Path, bundles: list[str]) -> None:
    # One client for all: the store must stand being shared by threads, and moto's time goes into few sessions.
    registry = Registry(s3_url, cache=tmp_path / "cache")
    answers = at_once([partial(registry.publish, b, "m", version="1.0.0", lineage={}) for b in bundles])
    assert sum(1 for answer in answers if getattr(answer, "created", False)) == 1
    assert sum(1 for answer in answers if type(answer).__name__ == "ConflictError") == WRITERS - 1
    assert len(registry.log("m")) == 1
    for index in range(1, 3):
        registry.publish(bundles[index], "m", version=f"1.0.{index}", lineage={})
    move = partial(registry.alias, "m", "production", expected=None)
    moves = [partial(move, f"1.0.{number % 3}") for number in range(WRITERS)]
    answers = at_once(moves)
    assert [answer is True for answer in answers].count(True) == 1
    assert len(registry.log("m")) == 4


@pytest.mark.parametrize("number", range(ROUNDS))
def test_eight_readers_fill_one_cache(tmp_path: Path, bundles: list[str], number: int) -> None:
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache", chunk_size=64)
    registry.publish(bundles[0], "m", lineage={})
    paths = at_once([lambda: Registry(tmp_path / "store", cache=tmp_path / "cache").pull("m")] * WRITERS)
    assert len(set(paths)) == 1
    assert {path.name for path in paths[0].iterdir()} == {path.name for path in Path(bundles[0]).iterdir()}
    assert list((tmp_path / "cache").rglob("*.partial")) == []
    assert list((tmp_path / "cache" / ".tmp").iterdir()) == []
