"""How far what a served classifier reads and answers has moved from what it was measured on."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import REFERENCE, read_json, write_json
from pipelines.errors import DataError, ModelError

#: What is compared as numbers; `label` is compared beside them, as shares. Pieces a word rise with words that the vocabulary lacks.
NUMBERS = ("length", "pieces_per_word", "probability")
LABEL = "label"
#: Values kept of each number, at even distances in their order.
KEPT = 1000
#: Bins of equal share that the stability index counts in, for numbers.
BINS = 10
#: Expected rows below which labels are counted together: the chi-squared distribution is no approximation there (Cochran, 1954).
EXPECTED = 5.0


@dataclass(frozen=True)
class Sample:
    """What was seen of some texts: values of each number, rows of each label."""

    numbers: dict[str, np.ndarray]
    labels: Counter[str]

    @property
    def rows(self) -> int:
        """How many texts there were."""
        return self.labels.total()


@dataclass(frozen=True)
class Moved:
    """One feature then and now: medians (None for labels), population stability index, and the p-value of no difference."""

    feature: str
    then: float | None
    now: float | None
    psi: float
    p_value: float
    drifted: bool


def sample_of(rows: Sequence[Mapping[str, Any]]) -> Sample:
    """A sample of rows with `length`, `words`, `pieces`, `probability` and `label`."""
    columns = {key: np.array([row[key] for row in rows], dtype=np.float64) for key in ("length", "probability")}
    counts = [(row["pieces"], max(row["words"], 1)) for row in rows]
    columns["pieces_per_word"] = np.array([pieces / words for pieces, words in counts], dtype=np.float64)
    return Sample(columns, Counter(str(row[LABEL]) for row in rows))


def write_reference(folder: Path, sample: Sample) -> None:
    """Write what a model saw when it was measured into its bundle: each number on its own and in order, so that no text is told by it."""
    places = np.linspace(0, sample.rows - 1, min(sample.rows, KEPT)).round().astype(np.int64)
    numbers = {key: np.sort(values)[places].round(4).tolist() for key, values in sample.numbers.items()}
    write_json(folder / REFERENCE, {"rows": sample.rows, "labels": dict(sample.labels), "numbers": numbers})


def read_reference(folder: Path) -> Sample:
    """The sample in a bundle. Raises ModelError where there is none, or it is another document."""
    path = folder / REFERENCE
    if not path.is_file():
        raise ModelError(
            f"{path}: missing; build and publish the model again: its evaluation writes it, for classifiers"
        )
    found = read_json(path)
    try:
        numbers = {key: np.array(found["numbers"][key], dtype=np.float64) for key in NUMBERS}
        labels = Counter({str(key): int(count) for key, count in found["labels"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path}: not what an evaluation writes ({error!r}); build and publish the model again"
        ) from error
    if not labels.total() or any(values.ndim != 1 or not values.size for values in numbers.values()):
        raise ModelError(f"{path}: it holds no rows; build and publish the model again")
    return Sample(numbers, labels)


def read_log(path: Path, digest: str, rows: int) -> Sample:
    """The newest rows of a prediction log that one version made. Raises DataError where the file or a line of it cannot be read."""
    newest: deque[Mapping[str, Any]] = deque(maxlen=rows)
    newest.extend(_lines(path, digest))
    return sample_of(newest)


def _lines(path: Path, digest: str) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.endswith("\n"):  # what does not is being written
                    row = _row(line, f"{path}, line {number}")
                    if row["digest"] == digest:
                        yield row
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); it is what `slm-registry serve --log` writes") from error


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        kinds = {"digest": str, "label": str, "length": int, "words": int, "pieces": int, "probability": int | float}
        wrong = [key for key, kind in kinds.items() if not isinstance(row[key], kind)]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}: no prediction of `slm-registry serve --log` ({error!r}); move the file away where an older server wrote it"
        ) from error
    if wrong:
        raise DataError(f"{where}: {', '.join(wrong)} of another type than `slm-registry serve --log` writes")
    found: dict[str, Any] = row
    return found


def moved(then: Sample, now: Sample, psi: float, p_value: float) -> list[Moved]:
    """Each feature then and now. One has drifted where its stability index is `psi` or more and chance explains it with less than
    `p_value`, divided among the features (Bonferroni): an index alone is large in any small sample (Yurdakul, 2018).

    Numbers are tested with Kolmogorov and Smirnov's two-sample test, labels with Pearson's chi-squared.
    """
    from scipy.stats import ks_2samp

    bound = p_value / (len(NUMBERS) + 1)
    found = []
    for key in NUMBERS:
        one, two = then.numbers[key], now.numbers[key]
        index, chance = stability(*_binned(one, two)), float(ks_2samp(one, two).pvalue)
        medians = float(np.median(one)), float(np.median(two))
        found.append(Moved(key, *medians, index, chance, index >= psi and chance < bound))
    table = _shares(then.labels, now.labels)
    index, chance = stability(*table), _chance(table)
    return [*found, Moved(LABEL, None, None, index, chance, index >= psi and chance < bound)]


def stability(then: np.ndarray, now: np.ndarray) -> float:
    """The population stability index of two rows of counts: the sum of both relative entropies; half a row is added to each count."""
    from scipy.stats import entropy

    one, two = then + 0.5, now + 0.5
    return float(entropy(one, two) + entropy(two, one))


def _binned(then: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts in bins of equal share of the first; values that are equal stay in one bin."""
    edges = np.unique(np.quantile(then, np.linspace(0, 1, BINS + 1)[1:-1]))
    one, two = (np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) for values in (then, now))
    return one, two


def _shares(then: Counter[str], now: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
    """Counts of each label; the last place counts those together that are rare in both."""
    both = then + now
    least = EXPECTED * both.total() / min(then.total(), now.total())
    often = [label for label in sorted(both) if both[label] >= least]
    one, two = ([counts[label] for label in often] for counts in (then, now))
    rest = (then.total() - sum(one), now.total() - sum(two))
    return np.array([*one, rest[0]]), np.array([*two, rest[1]])


def _chance(table: tuple[np.ndarray, np.ndarray]) -> float:
    """The p-value of equal shares; 1 where there is one label only."""
    from scipy.stats import chi2_contingency

    counts = np.stack(table)
    counts = counts[:, counts.sum(axis=0) > 0]
    return float(chi2_contingency(counts).pvalue) if counts.shape[1] > 1 else 1.0
