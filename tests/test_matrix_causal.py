"""Every causal architecture times every technique, on tiny random models: teach -> label -> distill -> prune -> quantize -> load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.families_cells import CAUSAL, GENERATOR_REASONS, SEQUENCE_COLUMNS
from tests.matrix_cells import check_cell
from tests.sequence_chain import Chain, clean_data
from tests.tiny_generators import CAUSAL as CONFIGS
from tests.tiny_generators import tiny_causal


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_data(tmp_path_factory.mktemp("clean"), "text-generation")


@pytest.fixture(scope="module", params=CAUSAL)
def chain(request: pytest.FixtureRequest, clean: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Chain]:
    folder, uncut = (
        tmp_path_factory.mktemp(request.param),
        {column for kind, column in GENERATOR_REASONS if kind == request.param},
    )
    source = tiny_causal(folder / "source", request.param)
    return request.param, Chain("text-generation", source, clean, folder, frozenset(uncut))


@pytest.mark.parametrize("column", SEQUENCE_COLUMNS)
def test_cell(chain: tuple[str, Chain], column: str) -> None:
    kind, steps = chain
    check_cell(steps, column, GENERATOR_REASONS.get((kind, column)))


def test_every_row_has_a_model() -> None:
    assert set(CAUSAL) == set(CONFIGS)
