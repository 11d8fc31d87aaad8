"""Drift: found where something moved, hardly ever where nothing did, and never through a file that cannot be read."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.bundle import REFERENCE
from pipelines.drift import KEPT, LABEL, Sample, moved, read_log, read_reference, sample_of, stability, write_reference
from pipelines.errors import DataError, ModelError

LABELS = ("refund", "delivery", "other")
PSI, P_VALUE = 0.2, 0.01


def rows(seed: int, count: int, **changed: Any) -> list[dict[str, Any]]:
    """Predictions of one world: words, pieces a word, confidence, shares of the labels."""
    world = {"words": 12.0, "pieces": 1.3, "confidence": 8.0, "shares": (0.5, 0.3, 0.2)} | changed
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words = int(random.poisson(world["words"])) + 1
        found.append(
            {
                "digest": "sha256:a",
                "length": words * 5 + int(random.integers(0, 5)),
                "words": words,
                "pieces": round(words * random.normal(world["pieces"], 0.3)),
                "probability": float(random.beta(world["confidence"], 2)),
                "label": str(random.choice(LABELS, p=world["shares"])),
            }
        )
    return found


def drifted(then: Sample, now: Sample) -> list[str]:
    return [one.feature for one in moved(then, now, PSI, P_VALUE) if one.drifted]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"words": 24.0}, ["length"]),
        ({"pieces": 1.9}, ["pieces_per_word"]),
        ({"confidence": 2.0}, ["probability"]),
        ({"shares": (0.2, 0.3, 0.5)}, [LABEL]),
    ],
)
def test_what_moved_is_named_and_nothing_else(changed: dict[str, Any], expected: list[str]) -> None:
    assert drifted(sample_of(rows(0, 1000)), sample_of(rows(1, 600, **changed))) == expected


def test_the_same_world_raises_hardly_an_alarm() -> None:
    """Small windows have large indices; the bound on chance holds over all features together: 1 in 100 at most, 5 of 200 by far."""
    then = sample_of(rows(0, 400))
    windows = [sample_of(rows(seed, 200)) for seed in range(1, 201)]
    assert sum(bool(drifted(then, window)) for window in windows) <= 5
    assert sum(one.psi >= 0.05 for window in windows for one in moved(then, window, PSI, P_VALUE)) > 100


def test_many_rare_labels_are_no_drift() -> None:
    random = np.random.default_rng(3)
    then, now = (
        Sample(dict(sample_of(rows(0, 300)).numbers), Counter(map(str, random.integers(0, 300, n)))) for n in (900, 250)
    )
    assert not moved(then, now, PSI, P_VALUE)[-1].drifted


def test_a_label_that_appears_is_drift() -> None:
    then = sample_of(rows(0, 500))
    now = sample_of([row | {"label": "new"} if at % 2 else row for at, row in enumerate(rows(1, 500))])
    assert drifted(then, now) == [LABEL]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12))
def test_the_index_is_the_plain_sum(counts: list[tuple[int, int]]) -> None:
    """PSI = sum of (p - q) ln(p / q), here in plain Python; the same from either side, and 0 between equals."""
    one, two = ([pair[side] + 0.5 for pair in counts] for side in (0, 1))
    p, q = ([value / sum(row) for value in row] for row in (one, two))
    plain = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    then, now = (np.array([pair[side] for pair in counts]) for side in (0, 1))
    assert stability(then, now) == pytest.approx(plain, abs=1e-9)
    assert stability(now, then) == pytest.approx(plain, abs=1e-9)
    assert stability(then, then) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("count", [1, 7, KEPT, 3 * KEPT + 1])
def test_the_reference_is_read_as_it_was_written(tmp_path: Path, count: int) -> None:
    sample = sample_of(rows(0, count))
    write_reference(tmp_path, sample)
    found = read_reference(tmp_path)
    assert found.labels == sample.labels and found.rows == count
    for key, values in sample.numbers.items():
        kept = found.numbers[key]
        assert len(kept) == min(count, KEPT) and (np.diff(kept) >= 0).all()
        for share in (0.0, 0.1, 0.5, 0.9, 1.0):
            assert np.quantile(kept, share) == pytest.approx(
                np.quantile(values, share), abs=0.05 * np.ptp(values) + 1e-4
            )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing; build and publish the model again"),
        ("{", "not valid JSON"),
        ("[]", "not what an evaluation writes"),
        ('{"labels": {"a": "x"}, "numbers": {}}', "not what an evaluation writes"),
        ('{"labels": {}, "numbers": {"length": [], "pieces_per_word": [], "probability": []}}', "it holds no rows"),
    ],
)
def test_a_wrong_reference_is_one_clear_error(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / REFERENCE).write_text(text)
    with pytest.raises(ModelError, match=message):
        read_reference(tmp_path)


def test_the_newest_rows_of_the_version_are_read(tmp_path: Path) -> None:
    log, made = tmp_path / "log", rows(0, 10)
    other = [row | {"digest": "sha256:b"} for row in rows(1, 5)]
    log.write_text("".join(json.dumps(row) + "\n" for row in [*made[:6], *other, *made[6:]]) + '{"digest": "sha2')
    found = read_log(log, "sha256:a", 7)
    assert found.numbers["length"].tolist() == [row["length"] for row in made[3:]]
    assert read_log(log, "sha256:c", 7).rows == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no prediction"),
        ("[1]", "line 2: no prediction"),
        ('{"digest": "sha256:a", "label": "x", "length": 3, "probability": 0.5}', "'words'.*older server"),
        (
            '{"digest": "sha256:a", "label": 3, "length": 3, "words": 1, "pieces": 1, "probability": 0.5}',
            "line 2: label of another type",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    log = tmp_path / "log"
    log.write_text(json.dumps(rows(0, 1)[0]) + f"\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_log(log, "sha256:a", 7)


def test_a_log_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="slm-registry serve --log"):
        read_log(tmp_path / "none", "sha256:a", 7)
