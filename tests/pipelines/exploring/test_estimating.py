"""The table of pieces: exact where costs add up, and its error where they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.exploring.estimating import Measured, error_of, fit_table, probes_of
from pipelines.techniques.elastic import slices_of
from pipelines.techniques.shapes import Slice
from tests.pipelines.techniques.test_elastic import choice

SPACE = slices_of(choice())
DEPTH_ONLY = [Slice((0, 1, 2), 0, 0, 0), Slice((2,), 0, 0, 0)]


@given(
    fixed=st.floats(0.01, 1),
    head=st.floats(0.001, 0.1),
    column=st.floats(0.0001, 0.01),
    tokens=st.lists(st.integers(1_000, 9_000_000), min_size=2, max_size=2),
)
def test_what_adds_up_is_estimated_exactly(fixed: float, head: float, column: float, tokens: list[int]) -> None:
    def truth(part: Slice) -> Measured:
        layer = head * part.num_attention_heads + column * part.intermediate_size
        size = tokens[part.vocabulary] + len(part.layers) * (
            part.intermediate_size * 768 + part.num_attention_heads * 98_304
        )
        return Measured(fixed + len(part.layers) * layer, size)

    probes = probes_of(SPACE)
    table = fit_table({part: truth(part) for part in probes})
    assert len(probes) < len(SPACE) / 3
    for part in SPACE:
        found, true = table.of(part), truth(part)
        assert found.p50_ms == pytest.approx(true.p50_ms, rel=1e-6, abs=1e-9)
        assert found.bytes == pytest.approx(true.bytes, abs=2)


def test_a_student_cut_in_depth_alone_has_a_table() -> None:
    table = fit_table({DEPTH_ONLY[0]: Measured(3.5, 350), DEPTH_ONLY[1]: Measured(1.5, 150)})
    assert probes_of(DEPTH_ONLY) == DEPTH_ONLY
    assert table.of(Slice((0, 1), 0, 0, 0)) == Measured(pytest.approx(2.5), 250)


def test_parts_without_layers_are_measured_themselves_and_change_no_other_estimate() -> None:
    bare = {Slice((), 0, 0, 0): Measured(0.1, 90), Slice((), 0, 0, 1): Measured(0.09, 30)}
    layered = {DEPTH_ONLY[0]: Measured(3.5, 350), DEPTH_ONLY[1]: Measured(1.5, 150)}
    assert probes_of([*DEPTH_ONLY, *bare]) == [*DEPTH_ONLY, *bare]
    table = fit_table(layered | bare)
    assert table.of(Slice((0, 1), 0, 0, 0)) == Measured(pytest.approx(2.5), 250)
    for part, true in bare.items():
        assert table.of(part) == Measured(pytest.approx(true.p50_ms), true.bytes)


def test_the_error_is_relative_to_what_was_measured() -> None:
    error = error_of([1.1, 2.0, 3.0], [1.0, 2.0, 4.0])
    assert (error.median, error.largest) == (pytest.approx(0.1), pytest.approx(0.25))
