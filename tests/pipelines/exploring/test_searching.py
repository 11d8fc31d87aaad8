"""The search: all there is where it is little, else what Optuna finds; the best of it is measured."""

from __future__ import annotations

from pipelines.exploring.searching import Candidate, search, worth_measuring
from pipelines.techniques.elastic import slices_of
from pipelines.techniques.shapes import Slice
from tests.pipelines.techniques.test_elastic import choice

SPACE = slices_of(choice())
WITHOUT_LAYERS = [Slice((), 0, 0, 0), Slice((), 0, 0, 1)]


def estimate(part: Slice, quantization: str) -> Candidate:
    """Deeper and wider is better and dearer; int8 is half the price for a little."""
    cheap = 0.5 if quantization == "dynamic_int8" else 1.0
    size = len(part.layers) * (part.intermediate_size + 10 * part.num_attention_heads) + 5 * (1 - part.vocabulary)
    return Candidate(
        part, quantization, size * cheap, round(100 * size * cheap), (1 - cheap) / 100 - size / (size + 50)
    )


def test_a_small_space_is_looked_at_whole() -> None:
    found = search(SPACE, ["none", "dynamic_int8"], estimate, 1000, 1)
    assert len(set(found)) == len(found) == 72


def test_a_large_space_is_searched_and_the_same_again_with_the_same_seed() -> None:
    found = search(SPACE, ["none", "dynamic_int8"], estimate, 40, 1)
    assert found == search(SPACE, ["none", "dynamic_int8"], estimate, 40, 1)
    assert 10 < len(set(found)) == len(found) <= 40


def test_parts_without_layers_are_searched_too_and_no_part_that_is_not_there() -> None:
    found = search([*SPACE, *WITHOUT_LAYERS], ["none", "dynamic_int8"], estimate, 60, 1)
    parts = {one.part for one in found}
    assert parts <= {*SPACE, *WITHOUT_LAYERS} and parts & {*WITHOUT_LAYERS} and parts & {*SPACE}


def test_what_is_measured_is_the_front_first() -> None:
    found = search(SPACE, ["none", "dynamic_int8"], estimate, 1000, 1)
    chosen = worth_measuring(found, 20)
    assert len(chosen) == 20
    assert [one.p50_ms for one in chosen] == sorted(one.p50_ms for one in chosen)
    assert {one.quantization for one in worth_measuring(found, 8)} >= {"dynamic_int8"}


def test_a_front_that_is_too_long_keeps_its_ends() -> None:
    front = [Candidate(SPACE[at], "none", float(at), 100 - at if at else 100, -at / 100) for at in range(10)]
    chosen = worth_measuring(front, 4)
    assert (chosen[0].p50_ms, chosen[-1].p50_ms, len(chosen)) == (0.0, 9.0, 4)


def test_a_front_that_is_too_long_keeps_its_smallest_and_its_most_accurate() -> None:
    """Neither stands at an end of the milliseconds."""
    front = [Candidate(SPACE[at], "none", float(at), 100 - at, -at / 100) for at in range(10)]
    front[1], front[8] = (Candidate(SPACE[1], "none", 1.0, 1, 1.0), Candidate(SPACE[8], "none", 8.0, 200, -9.0))
    chosen = worth_measuring(front, 5)
    assert len(chosen) == 5
    assert {front[0], front[1], front[8]} <= set(chosen)
    assert len(worth_measuring(front, 2)) == 2 and len(worth_measuring(front, 1)) == 1


def test_one_candidate_is_enough() -> None:
    only = estimate(SPACE[0], "none")
    assert worth_measuring([only], 20) == [only]
