"""Temperature and biases that are fitted on validation: against a grid, another optimizer, and worlds of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from pipelines.techniques.calibrating import FOLDS, RIDGES, fit_biases, fit_temperature

SHY = torch.tensor([0.0, 0.0, 0.0, -3.0])


def world(rows: int, biases: Tensor, sure: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits [rows, 4] that are right about their labels, then scaled by `sure` and shifted by `biases`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    return sure * (logits + biases), labels


def test_the_fitted_temperature_is_the_best_of_a_grid() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (400,))
    logits = 3 * (torch.randn(400, 4) + 1.5 * one_hot(labels, 4))

    def loss(temperature: float) -> float:
        return float(cross_entropy(logits / temperature, labels))

    best = min((loss(at / 100), at / 100) for at in range(20, 1000))[1]
    found = fit_temperature(logits, labels)
    assert found.temperature == pytest.approx(best, abs=0.02)
    assert found.ridge is None and not found.biases.any()


def test_biases_are_those_that_another_optimizer_finds() -> None:
    logits, labels = world(300, SHY, sure=1.5)
    found = fit_biases(logits, labels)
    assert found.ridge in RIDGES
    z, y, ridge = logits.double().numpy(), labels.numpy(), found.ridge

    def loss(x: np.ndarray) -> float:
        s = z / np.exp(x[0]) + x[1:]
        nats = np.log(np.exp(s).sum(1)) - s[np.arange(len(y)), y]
        return float(nats.mean() + ridge * (x[1:] ** 2).sum())

    best = minimize(loss, np.zeros(5), method="BFGS")
    assert found.temperature == pytest.approx(float(np.exp(best.x[0])), abs=1e-3)
    assert found.biases.numpy() == pytest.approx(best.x[1:], abs=1e-3)


def test_a_class_that_is_answered_too_seldom_is_answered_as_often_as_it_is_there() -> None:
    logits, labels = world(2000, SHY, sure=2.0)
    found = fit_biases(logits, labels)
    others, truth = world(2000, SHY, sure=2.0, seed=1)
    there = (truth == 3).float().mean()
    before, after = (each.softmax(-1)[:, 3].mean() for each in (others, found.of(others)))
    assert before < 0.4 * there and after == pytest.approx(float(there), abs=0.02)
    assert (found.of(others).argmax(1) == truth).sum() > (others.argmax(1) == truth).sum() + 40
    assert found.temperature == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("seed", range(8))
def test_logits_that_need_no_bias_get_none(seed: int) -> None:
    logits, labels = world(200, torch.zeros(4), sure=3.0, seed=seed)
    found = fit_biases(logits, labels)
    assert found.ridge is None and not found.biases.any()
    assert torch.equal(found.of(logits).argmax(1), logits.argmax(1))


@pytest.mark.parametrize("rows", [1, FOLDS - 1, FOLDS])
def test_few_rows_are_enough_for_an_answer(rows: int) -> None:
    logits, labels = world(rows, SHY)
    assert torch.isfinite(fit_biases(logits, labels).of(logits)).all()


def test_rows_in_the_order_of_their_classes_are_held_out_of_each() -> None:
    """Of rows that stand so, a run of them held out would be all there is of a class."""
    logits, labels = world(1000, SHY)
    order = labels.argsort(stable=True)
    assert fit_biases(logits[order], labels[order]).ridge is not None
