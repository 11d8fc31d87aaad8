from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.errors import ModelError
from pipelines.token_signals import choosing
from pipelines.token_signals.choosing import example_generator, sample_of, top_k_of
from tests.token_examples import top_k_rows


def logits_of(n: int, vocabulary: int) -> torch.Tensor:
    return torch.randn(n, vocabulary, generator=torch.Generator().manual_seed(3)) * 3


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_top_k_against_sorting(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "CHUNK_LOGITS", chunk)
    logits = logits_of(9, 40)
    ours, slow = top_k_of(logits, 5), top_k_rows(logits.double().numpy(), 5)
    assert np.array_equal(ours.ids, slow.ids)
    assert ours.log_probs == pytest.approx(slow.log_probs, abs=1e-5)
    assert ours.log_tail == pytest.approx(slow.log_tail, abs=1e-4)


def slow_draw(logits: np.ndarray, uniform: float) -> int:
    """The first token whose cumulative probability exceeds a number."""
    powers, total = np.exp(logits - logits.max()), 0.0
    for token, power in enumerate(powers / powers.sum()):
        total += power
        if total > uniform:
            return token
    raise AssertionError


def test_draws_against_a_walk_through_the_distribution() -> None:
    logits = logits_of(6, 30)
    ours = sample_of(logits, 8, example_generator(1, 2))
    points = torch.rand(6, 8, dtype=torch.float64, generator=example_generator(1, 2)).numpy()
    for row in range(6):
        ids, counts = np.unique(
            [slow_draw(logits[row].double().numpy(), point) for point in points[row]], return_counts=True
        )
        assert ours.ids[row].tolist() == ids.tolist() + [0] * (8 - len(ids))
        assert ours.counts[row].tolist() == counts.tolist() + [0] * (8 - len(ids))


def test_draws_do_not_depend_on_how_many_rows_are_worked_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = logits_of(11, 40)
    whole = sample_of(logits, 16, example_generator(5, 0))
    monkeypatch.setattr(choosing, "CHUNK_LOGITS", 80)
    chunked = sample_of(logits, 16, example_generator(5, 0))
    assert np.array_equal(whole.ids, chunked.ids) and np.array_equal(whole.counts, chunked.counts)


def test_every_example_has_draws_of_its_own() -> None:
    seen = {
        tuple(torch.rand(3, generator=example_generator(seed, example)).tolist())
        for seed in range(3)
        for example in range(30)
    }
    assert len(seen) == 90


@pytest.mark.parametrize("point", [0.0, 1 - 2**-53])
def test_a_token_that_cannot_be_is_not_drawn_at_the_ends_either(point: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, point, dtype=torch.float64))
    logits = torch.tensor([[-float("inf"), 0.3, 0.1, 0.2, -float("inf")]])
    assert sample_of(logits, 2, example_generator(0, 0)).ids.tolist() == [[1 if point == 0 else 3, 0]]


def test_mean_counts_approach_the_distribution() -> None:
    """Unbiased: 40,000 draws from one distribution, five standard errors."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -float("inf"), -4.0])
    rows = sample_of(logits.expand(200, -1), 200, example_generator(0, 0))
    totals = np.bincount(rows.ids.ravel(), rows.counts.ravel(), minlength=6)
    p = torch.softmax(logits, 0).numpy()
    assert totals.sum() == 40_000 and totals[4] == 0
    assert (np.abs(totals / 40_000 - p) <= 5 * np.sqrt(p * (1 - p) / 40_000)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("n", [0, 3])
def test_any_float_type_and_any_number_of_rows(dtype: torch.dtype, n: int) -> None:
    logits = logits_of(n, 20).to(dtype)
    assert top_k_of(logits, 4).ids.shape == (n, 4)
    assert (sample_of(logits, 5, example_generator(0, 0)).counts.sum(-1) == 5).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_is_refused_with_its_prediction(value: float) -> None:
    logits = logits_of(4, 20)
    logits[2, 7] = value
    with pytest.raises(ModelError, match="logits of prediction 2 are NaN or infinite"):
        top_k_of(logits, 3)
    with pytest.raises(ModelError, match="logits of prediction 2 are NaN or infinite"):
        sample_of(logits, 3, example_generator(0, 0))
