"""Temperature and biases that are fitted on validation: against a grid, another optimizer, and worlds of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from pipelines.errors import ModelError
from pipelines.techniques.calibrating import FOLDS, LEAST, MOST, RIDGES, _fitted, fit_biases, fit_temperature

SHY = torch.tensor([0.0, 0.0, 0.0, -3.0])


def world(rows: int, biases: Tensor, sure: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits [rows, C] that are right about their labels, then shifted by `biases` [C] and scaled by `sure`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, len(biases), generator=generator)
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
    found = fit_biases(logits, labels)
    assert torch.isfinite(found.of(logits)).all()
    assert rows == FOLDS or found.ridge is None


@pytest.mark.parametrize("order", ["sorted", "in turns"])
def test_rows_in_any_order_are_held_out_of_each_class(order: str) -> None:
    """A run of sorted rows would be all there is of a class; so would every fifth row of five classes in turns."""
    logits, labels = world(4000, torch.tensor([0.0, 0.0, 0.0, 0.0, -3.0]))
    place = labels.argsort(stable=True)
    if order == "in turns":
        fewest = int(torch.bincount(labels).min())
        place = torch.stack([torch.nonzero(labels == at).squeeze(1)[:fewest] for at in range(FOLDS)], 1).flatten()
    assert fit_biases(logits[place], labels[place]).ridge is not None


def test_a_class_without_a_row_has_no_bias() -> None:
    logits, labels = world(2000, SHY)
    logits = torch.cat([logits, logits.mean(1, keepdim=True)], 1)  # a fifth class, which validation lacks
    found = fit_biases(logits, labels)
    assert found.ridge is not None and found.biases[4] == 0 and found.biases[3] > 1


@pytest.mark.parametrize(("by", "away", "bound"), [(0.5, 0, LEAST), (200.0, 1, MOST)])
def test_no_row_in_doubt_keeps_the_temperature_within_the_bounds(by: float, away: int, bound: float) -> None:
    labels = torch.arange(40) % 4
    logits = by * one_hot((labels + away) % 4, 4).float()
    for fit in (fit_temperature, fit_biases):
        found = fit(logits, labels)
        assert found.temperature == pytest.approx(bound) and found.biases.abs().max() < 0.1


def test_a_row_has_no_say_in_what_it_is_held_out_of() -> None:
    """Of forty classes in two hundred rows, biases fit what they have seen, and nothing else."""
    logits, labels = world(200, torch.zeros(40))
    assert fit_biases(logits, labels).ridge is None


def test_logits_that_are_no_numbers_are_refused() -> None:
    logits, labels = world(20, SHY)
    logits[3, 1] = torch.nan
    with pytest.raises(ModelError, match="logits that are no numbers"):
        fit_biases(logits, labels)


def test_more_nats_for_fewer_right_answers_is_no_gain() -> None:
    """Half of the rows hold the temperature where it is, many of the others say that class 2 is too rare, and a few lose by that."""
    kinds = [
        ((4.0, 0.0, -30.0), {0: 2455, 1: 45}),
        ((0.0, 4.0, -30.0), {1: 2455, 0: 45}),
        ((0.0, -30.0, -8.0), {0: 3600, 2: 400}),
        ((0.0, -30.0, -0.2), {0: 600, 2: 400}),
    ]
    rows = [(row, label) for row, counts in kinds for label, count in counts.items() for _ in range(count)]
    logits, labels = torch.tensor([row for row, _ in rows]), torch.tensor([label for _, label in rows])
    biased = _fitted(logits, labels, RIDGES[-1])
    before, after = (cross_entropy(each, labels, reduction="none") for each in (logits.double(), biased.of(logits)))
    gain = before - after
    assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5, "or the rule would have nothing to refuse"
    assert fit_biases(logits, labels).ridge is None
