"""What a classifier's logits are scaled by and shifted by, fitted on validation, so that it is as sure as it is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

#: What a squared bias may cost, in nats: the lightest is a hundredth of a nat for a bias of ten.
RIDGES = (1e-2, 1e-3, 3e-4, 1e-4)
#: Parts of the rows, each held out once, that judge which of these is best, or whether biases help at all.
FOLDS = 5
#: Standard errors that the held-out gain must exceed: biases change answers, so a chance gain is none.
BEYOND_DOUBT = 2.0


@dataclass(frozen=True)
class Calibration:
    """Logits [N, C] become logits / temperature + biases [C]. `ridge` is None, and the biases 0, where these did not help."""

    temperature: float
    biases: Tensor
    ridge: float | None = None

    def of(self, logits: Tensor) -> Tensor:
        """The logits [N, C] as they are to be, float64."""
        return logits.double() / self.temperature + self.biases


def fit_temperature(logits: Tensor, labels: Tensor) -> Calibration:
    """The temperature that minimises the cross-entropy of logits [N, C] (Guo et al. 2017), within 0.05 to 20."""
    return _fitted(logits, labels, None)


def fit_biases(logits: Tensor, labels: Tensor) -> Calibration:
    """Temperature and a bias a class (Alexandari et al. 2020), kept small by the ridge that cross-validation likes best.

    Where held-out rows are not better for it beyond doubt, or too few to hold any out, the temperature alone.
    """
    if len(labels) < FOLDS:
        return fit_temperature(logits, labels)
    plain = _held_out(logits, labels, None)
    tried = {ridge: _held_out(logits, labels, ridge) for ridge in RIDGES}
    best = min(RIDGES, key=lambda ridge: float(tried[ridge].mean()))
    gain = plain - tried[best]
    sure = float(gain.mean()) > BEYOND_DOUBT * float(gain.std()) / len(gain) ** 0.5
    return _fitted(logits, labels, best if sure else None)


def _held_out(logits: Tensor, labels: Tensor, ridge: float | None) -> Tensor:
    """Nats [N] of each row by a calibration that was fitted without it."""
    fold = torch.arange(len(labels)) % FOLDS  # rows often stand in the order of their classes
    nats = torch.empty(len(labels), dtype=torch.float64)
    for at in range(FOLDS):
        rest = fold != at
        found = _fitted(logits[rest], labels[rest], ridge)
        nats[~rest] = cross_entropy(found.of(logits[~rest]), labels[~rest], reduction="none")
    return nats


def _fitted(logits: Tensor, labels: Tensor, ridge: float | None) -> Calibration:
    scores = logits.double()
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    biases = torch.zeros(scores.shape[1], dtype=torch.float64, requires_grad=ridge is not None)

    def loss() -> Tensor:
        nats = cross_entropy(scores / log_t.exp() + biases, labels)
        return nats if ridge is None else nats + ridge * biases.square().sum()

    _minimise(loss, [log_t] if ridge is None else [log_t, biases])
    return Calibration(float(log_t.detach().exp().clamp(0.05, 20)), biases.detach(), ridge)


def _minimise(loss: Callable[[], Tensor], over: list[Tensor]) -> None:
    optimizer = torch.optim.LBFGS(over, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        found = loss()
        found.backward()
        return found

    optimizer.step(closure)
