from __future__ import annotations

from typing import Any

import pytest

from flows.results import result_rows

GENERATOR = {
    "teacher": {"bits_per_byte": 1.7, "bytes": 7_000_000, "tokens_per_s": 500.0},
    "model": {"bits_per_byte": 1.65, "bytes": 1_000_000, "tokens_per_s": 2500.0},
    "control": {"bits_per_byte": 1.75},
    "student": {"bits_per_byte": 1.74},
    "comparison": {
        "bits_per_byte_difference": -0.05,
        "bits_per_byte_difference_low": -0.06,
        "bits_per_byte_difference_high": -0.04,
        "control_bits_per_byte_difference": -0.01,
        "size_ratio": 7.0,
        "tokens_per_s_ratio": 5.0,
    },
}


def test_a_generator_is_shown_by_its_own_measures_and_by_what_distillation_gave() -> None:
    assert result_rows(GENERATOR) == [
        ("bits a byte (less is better)", "1.7000", "1.6500", "-0.0500 (-0.0600 to -0.0400)"),
        ("size, MB", "7.00", "1.00", "7.0x smaller"),
        ("tokens a second after it", "500", "2500", "5.0x as many"),
        ("bits a byte, student alone", "", "1.7500", ""),
        ("bits a byte, student distilled", "", "1.7400", "-0.0100"),
    ]


def test_a_figure_that_one_side_lacks_is_a_dash() -> None:
    assert result_rows({"teacher": {"accuracy": 0.9}}) == [("accuracy, % (95 % interval)", "90.00", "-", "")]


@pytest.mark.parametrize(
    "metrics", [None, [], {}, {"teacher": 3}, {"model": {"accuracy": "high"}}, {"comparison": {"size_ratio": None}}]
)
def test_what_holds_no_figure_has_no_rows(metrics: Any) -> None:
    assert result_rows(metrics) == []
