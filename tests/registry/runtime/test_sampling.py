"""Drawing tokens: the distribution is that of torch and transformers, and draws depend on the seed and the row alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from slm_registry.runtime.sampling import Sampling, choose

from tests.made_once import MadeOnce

DRAWS = 4000


def expected(logits: np.ndarray[Any, Any], sampling: Sampling) -> np.ndarray[Any, Any]:
    """Probabilities [V] as transformers' own warpers leave them."""
    from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    scores = TemperatureLogitsWarper(sampling.temperature)(None, torch.tensor(logits)[None])
    if sampling.top_k is not None:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p is not None:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    found: np.ndarray[Any, Any] = scores.double().softmax(dim=-1)[0].numpy()
    return found


@pytest.fixture(scope="module")
def logits(made_once: MadeOnce) -> np.ndarray[Any, Any]:
    """Scores [V] of a tiny model's next token."""
    model, _ = made_once.model("llama")
    with torch.inference_mode():
        found: np.ndarray[Any, Any] = model(torch.tensor([[5, 9, 40, 77]])).logits[0, -1].numpy()
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.3},
        {"temperature": 2.5},
        {"temperature": 1.5, "top_k": 7},
        {"temperature": 1.5, "top_k": 10_000},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 2.0, "top_k": 30, "top_p": 0.6},
        {"temperature": 1.0, "top_p": 1e-9},
    ],
)
def test_draws_have_the_distribution_of_transformers(logits: np.ndarray[Any, Any], options: dict[str, Any]) -> None:
    sampling = Sampling(**options, seed=0)
    generator = sampling.generator(0)
    rows = np.tile(logits, (DRAWS, 1))
    drawn = np.bincount(choose(rows, sampling, [()] * DRAWS, [generator] * DRAWS), minlength=len(logits))
    wanted = expected(logits, sampling) * DRAWS
    assert drawn[wanted == 0].sum() == 0
    # Tokens that are expected less than five times count together.
    rare = wanted < 5
    seen, hoped = [*drawn[~rare], drawn[rare].sum()], [*wanted[~rare], wanted[rare].sum()]
    if hoped[-1] < 5:
        seen, hoped = [*seen[:-2], seen[-2] + seen[-1]], [*hoped[:-2], hoped[-2] + hoped[-1]]
    if len(seen) > 1:
        assert chisquare(seen, hoped).pvalue > 1e-3


def test_greedy_takes_the_first_of_equals_and_draws_nothing() -> None:
    scores = np.array([[0.0, 3.0, 3.0], [1.0, 0.0, -1.0]], np.float32)
    assert choose(scores, Sampling(top_k=1), [(), ()], [None, None]) == [1, 0]


def test_a_seed_and_a_row_make_the_draws() -> None:
    first, again, other = (Sampling(temperature=1, seed=7).generator(row) for row in (3, 3, 4))
    assert first.random(8).tolist() == again.random(8).tolist() != other.random(8).tolist()
    assert Sampling(temperature=1, seed=8).generator(3).random(8).tolist() != first.random(8).tolist()


def test_repetition_costs_whatever_the_sign() -> None:
    scores = np.array([[2.0, 1.5, -1.0, -1.2]], np.float32)
    sampling = Sampling(repetition_penalty=2)
    assert choose(scores, sampling, [(0, 0)], [None]) == [1]
    assert choose(scores[:, 2:], sampling, [(0,)], [None]) == [1]
    assert scores[0, 0] == 2
