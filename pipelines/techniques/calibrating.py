"""What a classifier's logits are scaled by and shifted by, fitted on validation, so that it is as sure as it is right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipelines.errors import ModelError

#: What a squared bias may cost, in nats: the lightest is a hundredth of a nat for a bias of ten.
RIDGES = (1e-2, 1e-3, 3e-4, 1e-4)
#: Parts of the rows, each held out once, that judge which of these is best, or whether biases help at all.
FOLDS = 5
#: Standard errors that the held-out gain must exceed: biases change answers, so a chance gain is none.
BEYOND_DOUBT = 2.0
LEAST, MOST = 0.05, 20.0


@dataclass(frozen=True)
class Calibration:
    """Logits [N, C] become logits / temperature + biases [C]. `ridge` is None, and the biases 0, where these did not help."""

    temperature: float
    biases: Tensor
    ridge: float | None

    def of(self, logits: Tensor) -> Tensor:
        """The logits [N, C] as they are to be, float64."""
        return logits.double() / self.temperature + self.biases


def fit_temperature(logits: Tensor, labels: Tensor) -> Calibration:
    """The temperature that minimises the cross-entropy of logits [N, C] (Guo et al. 2017), within 0.05 to 20.

    Raises ModelError where a logit is no number.
    """
    return _fitted(logits, labels, None)


def fit_biases(logits: Tensor, labels: Tensor) -> Calibration:
    """Temperature and a bias a class (Alexandari et al. 2020), kept small by the ridge that cross-validation likes best.

    The temperature alone where held-out rows are not better for biases beyond doubt, or answered less rightly, or too few to hold any out.
    A class without a row has no bias. Raises ModelError where a logit is no number.
    """
    if len(labels) < FOLDS:
        return fit_temperature(logits, labels)
    plain, right = _held_out(logits, labels, None)
    tried = {ridge: _held_out(logits, labels, ridge) for ridge in RIDGES}
    best = min(RIDGES, key=lambda ridge: float(tried[ridge][0].mean()))
    gain = plain - tried[best][0]
    sure = float(gain.mean()) > BEYOND_DOUBT * float(gain.std()) / len(gain) ** 0.5
    return _fitted(logits, labels, best if sure and tried[best][1] >= right else None)


def _held_out(logits: Tensor, labels: Tensor, ridge: float | None) -> tuple[Tensor, int]:
    """Nats [N] of each row by a calibration that was fitted without it, and how many of these answers are right."""
    fold = torch.empty_like(labels)
    # every class in every fold, where it has the rows
    fold[labels.argsort(stable=True)] = torch.arange(len(labels)) % FOLDS
    nats, right = torch.empty(len(labels), dtype=torch.float64), 0
    for at in range(FOLDS):
        rest = fold != at
        answers = _fitted(logits[rest], labels[rest], ridge).of(logits[~rest])
        nats[~rest] = cross_entropy(answers, labels[~rest], reduction="none")
        right += int((answers.argmax(1) == labels[~rest]).sum())
    return nats, right


def _fitted(logits: Tensor, labels: Tensor, ridge: float | None) -> Calibration:
    scores = logits.double()
    if not scores.isfinite().all():
        raise ModelError(
            "the pruned model answers validation texts with logits that are no numbers; train it anew with a lower learning_rate"
        )
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    free = torch.zeros(scores.shape[1], dtype=torch.float64, requires_grad=ridge is not None)
    # Nothing is known of a class that has no row, and a bias of its own would sink without end.
    there = torch.bincount(labels, minlength=scores.shape[1]) > 0

    def temperature() -> Tensor:
        return log_t.clamp(math.log(LEAST), math.log(MOST)).exp()

    def loss() -> Tensor:
        nats = cross_entropy(scores / temperature() + free * there, labels)
        return nats if ridge is None else nats + ridge * free.square().sum()

    _minimise(loss, [log_t] if ridge is None else [log_t, free])
    with torch.no_grad():
        return Calibration(float(temperature()), free.detach() * there, ridge)


def _minimise(loss: Callable[[], Tensor], over: list[Tensor]) -> None:
    optimizer = torch.optim.LBFGS(over, max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        found = loss()
        found.backward()
        return found

    optimizer.step(closure)
