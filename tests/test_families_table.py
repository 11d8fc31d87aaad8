"""The published table is the one that the tests run."""

from __future__ import annotations

from tests.families_cells import (
    CAUSAL,
    CLASSIFIER_COLUMNS,
    CLASSIFIER_REASONS,
    ENCODERS,
    GENERATOR_REASONS,
    SEQ2SEQ,
    SEQUENCE_COLUMNS,
    TAGGER_REASONS,
)
from tests.families_table import PAGE, README, page, readme


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"
    assert README.read_text(encoding="utf-8") == readme(), "run `make docs`"


def test_reasons_stand_at_real_cells() -> None:
    for reasons, rows, columns in (
        (GENERATOR_REASONS, {**CAUSAL, **SEQ2SEQ}, SEQUENCE_COLUMNS),
        (TAGGER_REASONS, ENCODERS, SEQUENCE_COLUMNS),
        (CLASSIFIER_REASONS, ENCODERS, CLASSIFIER_COLUMNS),
    ):
        assert {kind for kind, _ in reasons} <= set(rows)
        assert {column for _, column in reasons} <= set(columns)
