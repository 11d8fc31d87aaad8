"""Every encoder-decoder and every tagger times every technique, on tiny random models, as test_matrix_causal.py does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.families_cells import ENCODERS, GENERATOR_REASONS, SEQ2SEQ, SEQUENCE_COLUMNS, TAGGER_REASONS
from tests.matrix_cells import check_cell
from tests.sequence_chain import Chain, clean_data
from tests.tiny import tiny_model
from tests.tiny_generators import SEQ2SEQ as CONFIGS
from tests.tiny_generators import tiny_seq2seq

TASKS = dict.fromkeys(SEQ2SEQ, "text-to-text") | dict.fromkeys(ENCODERS, "token-classification")
REASONS = {**GENERATOR_REASONS, **TAGGER_REASONS}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {task: clean_data(tmp_path_factory.mktemp("clean"), task) for task in sorted(set(TASKS.values()))}


@pytest.fixture(scope="module", params=TASKS)
def chain(
    request: pytest.FixtureRequest, clean: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Chain]:
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    source = (tiny_seq2seq if kind in SEQ2SEQ else tiny_model)(folder / "source", kind)
    uncut = frozenset(column for row, column in REASONS if row == kind)
    return kind, Chain(TASKS[kind], source, clean[TASKS[kind]], folder, uncut)


@pytest.mark.parametrize("column", SEQUENCE_COLUMNS)
def test_cell(chain: tuple[str, Chain], column: str) -> None:
    kind, steps = chain
    check_cell(steps, column, REASONS.get((kind, column)))


def test_every_row_has_a_model() -> None:
    assert set(SEQ2SEQ) == set(CONFIGS)
