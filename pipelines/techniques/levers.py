"""Data as a lever: what each kind of text beside the training text is worth to a student, measured on validation data before training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipelines.bundle import Bundle, Lineage
from pipelines.config import Losses, StudentTraining, Task, Trial
from pipelines.data.clean import Split
from pipelines.families.base import Family
from pipelines.techniques.course import Keeper
from pipelines.techniques.distilling import learn
from pipelines.techniques.lessons import Lesson
from pipelines.techniques.metrics import Interval, difference_of_right
from pipelines.techniques.resampling import paired_bootstrap
from pipelines.techniques.scoring import predict_logits


@dataclass(frozen=True)
class Gain:
    """What a lever won on validation data over as many steps on the given texts alone, with 95 % intervals of a paired bootstrap.

    `accuracy` is a difference of shares, `nats` of the mean cross-entropy with the true label: above 0 is better in both.
    """

    lever: str
    texts: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    nats: float
    nats_low: float
    nats_high: float

    @property
    def helps(self) -> bool:
        """Whether the student is surer of what is true beyond doubt, and not less often right.

        Accuracy alone moves too little on a validation set to tell one lever from none.
        """
        return self.nats_low > 0 and self.accuracy >= 0


#: Answers the student as it is before any training.
Fresh = Callable[[], Bundle]


def measure_levers(
    family: Family,
    fresh: Fresh,
    lesson: Lesson,
    validation: Split,
    weights: Losses,
    settings: StudentTraining,
    trial: Trial,
    task: Task,
    keeper: Keeper,
) -> list[Gain]:
    """The gain of each lever of a lesson, alone: students of one beginning, as many steps each, on twice as many texts as are given.

    One student reads the given texts twice in each pass; the others read as many of the lever's as there are in place of the second time.
    """
    given = len(lesson.texts) - sum(map(len, lesson.levers.values()))
    training = settings.model_copy(update={"epochs": trial.epochs, "patience": trial.epochs})

    def answers(name: str, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        student = fresh()
        learn(
            family,
            student,
            lesson.of([*range(given), *places]),
            validation,
            weights,
            training,
            max_length=task.max_length,
            seed=task.seed,
            phase=f"trial {name}",
            epochs=trial.epochs,
            keeper=keeper,
        )
        return _answers(family, student, validation, task.max_length)

    plain = answers("without", range(given))
    gains = []
    for name, places in lesson.levers.items():
        levered = answers(name, _as_many(places, given, task.seed))
        gains.append(_gain(name, len(places), levered, plain, trial.bootstrap_samples, task.seed))
    return gains


def _as_many(places: Sequence[int], count: int, seed: int) -> list[int]:
    """`count` places: a lever's, or a random part of them; where it has too few, given texts in the rest's place."""
    some = np.random.default_rng(seed).permutation(np.asarray(places))[:count]
    return [*some.tolist(), *range(count - len(some))]


def _answers(family: Family, student: Bundle, validation: Split, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the student is right [N], and its cross-entropy in nats [N]."""
    encoded = family.encode(student.tokenizer, validation.texts, max_length)
    logits, truth = predict_logits(family, student.model, student.tokenizer, encoded), torch.tensor(validation.labels)
    nats = F.cross_entropy(logits, truth, reduction="none")
    return (logits.argmax(-1) == truth).numpy(), nats.double().numpy()


def _gain(
    name: str,
    texts: int,
    levered: tuple[np.ndarray, np.ndarray],
    plain: tuple[np.ndarray, np.ndarray],
    samples: int,
    seed: int,
) -> Gain:
    right: Interval = difference_of_right(levered[0], plain[0], samples, seed)
    rows = len(plain[1])
    nats = paired_bootstrap(plain[1][:, None], levered[1][:, None], lambda sums: float(sums[0]) / rows, samples, seed)
    return Gain(name, texts, right.value, right.low, right.high, nats.value, nats.low, nats.high)


def facts_of(gains: Sequence[Gain]) -> list[dict[str, Any]]:
    """The gains as the lineage keeps them."""
    return [asdict(gain) | {"used": gain.helps} for gain in gains]


def levers_left_out(lineage: Lineage) -> list[str]:
    """The levers that did not help the student when it was distilled; none where nothing was measured."""
    gains = [gain for entry in lineage["stages"] if entry["stage"] == "distill" for gain in entry["levers"]]
    return [gain["lever"] for gain in gains if not gain["used"]]


def copies_of(bundle: Bundle) -> Fresh:
    """Students that begin where this one stands."""
    return lambda: Bundle(copy.deepcopy(bundle.model), bundle.tokenizer, bundle.lineage)
