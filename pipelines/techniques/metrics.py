"""Quality of predictions: accuracy with an interval, macro-F1, calibration, and the paired comparison of two models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]

#: Normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A value with its two-sided 95 % interval."""

    value: float
    low: float
    high: float


def accuracy(truth: Labels, predicted: Labels) -> Interval:
    """Share of right answers with its Wilson interval (Wilson 1927)."""
    rows, share = len(truth), float(np.mean(truth == predicted))
    centre = (share + Z95**2 / (2 * rows)) / (1 + Z95**2 / rows)
    half = Z95 / (1 + Z95**2 / rows) * np.sqrt(share * (1 - share) / rows + Z95**2 / (4 * rows**2))
    return Interval(share, float(centre - half), float(centre + half))


def macro_f1(truth: Labels, predicted: Labels, classes: int) -> float:
    """Unweighted mean of every class's F1."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, labels=range(classes), average="macro", zero_division=0))


@dataclass(frozen=True)
class ClassRow:
    """One line of the per-class table."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


def per_class(truth: Labels, predicted: Labels, labels: list[str]) -> list[ClassRow]:
    """Precision, recall, F1 and rows of every class."""
    from sklearn.metrics import precision_recall_fscore_support

    table = precision_recall_fscore_support(truth, predicted, labels=range(len(labels)), zero_division=0)
    return [
        ClassRow(label, float(p), float(r), float(f), int(n)) for label, p, r, f, n in zip(labels, *table, strict=True)
    ]


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose confidence falls between low and high, what was promised and what was kept."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def reliability(truth: Labels, probabilities: Probabilities, bins: int) -> list[ReliabilityBin]:
    """Non-empty confidence bins of equal width."""
    return reliability_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth, bins)


def reliability_bins(confidence: Probabilities, right: NDArray[np.bool_], bins: int) -> list[ReliabilityBin]:
    """The same, of what was promised [N] and whether it was kept [N]."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            at / bins, (at + 1) / bins, int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())
        )
        for at in range(bins)
        if (inside := place == at).any()
    ]


def calibration_error(bins: list[ReliabilityBin]) -> float:
    """Expected calibration error: mean |confidence - accuracy| over rows (Naeini et al. 2015)."""
    rows = sum(item.rows for item in bins)
    return sum(item.rows * abs(item.confidence - item.accuracy) for item in bins) / rows


def paired_difference(truth: Labels, model: Labels, teacher: Labels, samples: int, seed: int) -> Interval:
    """Accuracy of model minus teacher with the 95 % percentile interval of a paired bootstrap over rows (Efron 1979).

    Rows are resampled with both answers together, after two rows were added to them, one that each side alone has right (Bonett &
    Price 2012): few rows on which both happen to agree would else have an interval of no width. Only three outcomes matter (model
    right alone, teacher right alone, tie), so a resample is one multinomial draw: exactly the row bootstrap, without drawing rows.
    """
    return difference_of_right(model == truth, teacher == truth, samples, seed)


def difference_of_right(model: NDArray[np.bool_], teacher: NDArray[np.bool_], samples: int, seed: int) -> Interval:
    """The same, of where each was right [N]."""
    gain = model.astype(int) - teacher.astype(int)
    rows = len(gain) + 2
    counts = np.array([(gain == 1).sum() + 1, (gain == -1).sum() + 1, (gain == 0).sum()])
    draws = np.random.default_rng(seed).multinomial(rows, counts / rows, size=samples)
    differences = (draws[:, 0] - draws[:, 1]) / rows
    low, high = np.percentile(differences, [2.5, 97.5])
    return Interval(float(gain.mean()), float(low), float(high))
