from __future__ import annotations

import numpy as np
import pytest

from pipelines.config import Losses, StudentLayers, StudentTraining, Task, Trial
from pipelines.data.clean import CleanData, Split
from pipelines.families.encoder import EncoderClassifier
from pipelines.signals import Signals, text_key
from pipelines.techniques.course import Unkept
from pipelines.techniques.lessons import Lesson, lesson_from
from pipelines.techniques.levers import Gain, copies_of, facts_of, levers_left_out, measure_levers
from pipelines.techniques.losses import NO_LABEL
from tests.recipes import LOSSES, STUDENT_TRAINING
from tests.tiny import tiny_model, tiny_rows

FAMILY = EncoderClassifier()
LABELS = ["login", "parcel", "refund"]
ROWS = [(text, LABELS.index(label)) for text, label in tiny_rows()]
#: A label has four sentences with eight tails each: two sentences with two tails are given.
GIVEN = [row for at, row in enumerate(ROWS) if at % 32 in (0, 1, 8, 9)]
KNOWN = [row for at, row in enumerate(ROWS) if at % 32 < 16 and row not in GIVEN]
UNKNOWN = [row for at, row in enumerate(ROWS) if at % 32 >= 16]
TASK = Task(type="text-classification", seed=5, max_length=32, threads=1)
TRIAL = Trial(epochs=12, bootstrap_samples=500)


def told(rows: list[tuple[str, int]], turn: int = 0) -> list[tuple[str, np.ndarray]]:
    """Texts with a teacher's sure logits; with a turn it is as sure of another label."""
    return [(text, np.eye(3, dtype=np.float16)[(label + turn) % 3] * 8) for text, label in rows]


def lesson_of(levers: dict[str, list[tuple[str, np.ndarray]]], unlabelled: tuple[str, ...] = ()) -> Lesson:
    """Twelve given texts, more by lever, and what a teacher said of them all."""
    known = dict([*told(GIVEN), *((text, logits) for some in levers.values() for text, logits in some)])
    known |= {text: np.zeros(3, dtype=np.float16) for text in unlabelled}
    signals = Signals(
        rows={text_key(text): row for row, text in enumerate(known)},
        cuts=np.zeros((len(known), 8), dtype=np.uint8),
        offsets=np.zeros(1, dtype=np.int64),
        logits=np.stack(list(known.values())),
        levers={name: [text for text, _ in some] for name, some in levers.items()},
        hidden={},
        relations=(),
        teacher_heads=1,
    )
    train = Split([text for text, _ in GIVEN], [label for _, label in GIVEN])
    return lesson_from(CleanData(train, train, train, LABELS, list(unlabelled), ""), signals)


def test_a_lesson_knows_what_brought_each_text() -> None:
    made = {"typos": told(KNOWN[1:3]), "cut_mix": told(KNOWN[5:8])}
    lesson = lesson_of(made, ("said by nobody",))
    assert {name: [lesson.texts[at] for at in places] for name, places in lesson.levers.items()} == {
        "unlabelled": ["said by nobody"],
        "typos": [text for text, _ in KNOWN[1:3]],
        "cut_mix": [text for text, _ in KNOWN[5:8]],
    }
    less = lesson.without(["typos", "unlabelled"])
    assert less.texts == [*lesson.texts[:12], *(text for text, _ in KNOWN[5:8])]
    assert less.labels.tolist() == [*lesson.labels[:12], *[NO_LABEL] * 3]
    said = np.stack([logits for _, logits in made["cut_mix"]])
    assert (less.signals.logits[less.rows[12:]] == said).all()
    assert lesson.without([]) is lesson


@pytest.fixture(scope="module")
def gains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gain]:
    """A lever of true texts, one of texts that the teacher takes for others, and one of a single text."""
    body = FAMILY.load_pretrained(tiny_model(tmp_path_factory.mktemp("body") / "tiny"), LABELS)
    fresh = copies_of(FAMILY.student(body, StudentLayers(kind="layers", layers=[0])))
    lesson = lesson_of({"true": told(UNKNOWN[::2]), "false": told(KNOWN[::2], turn=1), "few": told(UNKNOWN[:1])})
    validation = Split([text for text, _ in UNKNOWN[1::2]], [label for _, label in UNKNOWN[1::2]])
    settings = StudentTraining.model_validate(STUDENT_TRAINING)
    before = [weight.clone() for weight in fresh().model.parameters()]
    found = measure_levers(
        FAMILY, fresh, lesson, validation, Losses.model_validate(LOSSES), settings, TRIAL, TASK, Unkept()
    )
    assert all((one == other).all() for one, other in zip(before, fresh().model.parameters(), strict=True))
    return {gain.lever: gain for gain in found}


def test_what_helps_is_told_from_what_does_not(gains: dict[str, Gain]) -> None:
    assert {name: gain.texts for name, gain in gains.items()} == {"true": 24, "false": 18, "few": 1}
    assert gains["true"].nats_low > 0 and gains["true"].accuracy > 0
    assert gains["true"].helps and not gains["false"].helps
    assert gains["false"].nats < gains["true"].nats
    for gain in gains.values():
        assert gain.nats_low <= gain.nats <= gain.nats_high and gain.accuracy_low <= gain.accuracy <= gain.accuracy_high


def test_what_did_not_help_is_left_out_ever_after(gains: dict[str, Gain]) -> None:
    lineage = {"stages": [{"stage": "distill", "levers": facts_of(list(gains.values()))}, {"stage": "prune"}]}
    left = levers_left_out(lineage)
    assert "false" in left and "true" not in left
    assert levers_left_out({"stages": [{"stage": "distill", "levers": []}]}) == []


def test_accuracy_that_falls_is_no_help() -> None:
    assert Gain("any", 9, 0.0, -0.1, 0.1, 0.2, 0.1, 0.3).helps
    assert not Gain("any", 9, -0.01, -0.1, 0.1, 0.2, 0.1, 0.3).helps
    assert not Gain("any", 9, 0.1, 0.0, 0.2, 0.1, 0.0, 0.2).helps
