"""How a lesson is read: as the tokenizer cuts it, or each batch without a fold of the vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.bundle import Bundle
from pipelines.config import Losses, StudentTraining
from pipelines.data.clean import Split
from pipelines.errors import ModelError
from pipelines.families.encoder import EncoderClassifier
from pipelines.signals import Signals, cut_key
from pipelines.techniques.course import Unkept
from pipelines.techniques.distilling import learn
from pipelines.techniques.lessons import Lesson, Reader, losses_that_fit, read_lesson
from pipelines.techniques.scoring import predict_logits
from pipelines.techniques.vocabulary.choices import Cut, uncut
from pipelines.techniques.vocabulary.cutting import kept_without, prune_tokenizer
from tests.recipes import LOSSES, STUDENT_TRAINING
from tests.tiny import tiny_model, tiny_rows

FAMILY = EncoderClassifier()
LABELS = ["login", "parcel", "refund"]
TEXTS = [text for text, _ in tiny_rows()]
TRUTH = [LABELS.index(label) for _, label in tiny_rows()]
WEIGHTS = Losses.model_validate(LOSSES)
BATCH = np.array([5, 40, 80])


@pytest.fixture
def student(tmp_path: Path) -> Bundle:
    return FAMILY.load_pretrained(tiny_model(tmp_path / "body"), LABELS)


def lesson_for(bundle: Bundle) -> Lesson:
    """What a teacher with the student's tokenizer said of every text."""
    encoded = FAMILY.encode(bundle.tokenizer, TEXTS, 32)
    signals = Signals(
        rows={},
        cuts=np.stack([np.frombuffer(cut_key(bundle.tokenizer, row), dtype=np.uint8) for row in encoded]),
        offsets=np.zeros(1, dtype=np.int64),
        logits=np.eye(3, dtype=np.float16)[TRUTH] * 8,
        levers={},
        hidden={},
        relations=(),
        teacher_heads=1,
    )
    return Lesson(TEXTS, np.array(TRUTH), np.arange(len(TEXTS)), signals, {})


def reader_of(bundle: Bundle, cut: Cut, folds: int | None) -> Reader:
    return Reader(FAMILY, cut, lesson_for(bundle), WEIGHTS, 32, folds, seed=3)


def test_losses_a_token_need_texts_that_both_cut_alike(student: Bundle) -> None:
    hidden = WEIGHTS.model_copy(update={"hidden_mse": 1.0})
    lesson = lesson_for(student)
    assert losses_that_fit(FAMILY, student.tokenizer, lesson, hidden, 32) == hidden
    letters = [token for token, at in student.tokenizer.get_vocab().items() if len(token.removeprefix("##")) == 1]
    gone = set(student.tokenizer.get_vocab().values()) - {student.tokenizer.get_vocab()[token] for token in letters}
    other = prune_tokenizer(student.tokenizer, kept_without(student.tokenizer, gone))
    assert losses_that_fit(FAMILY, other, lesson, hidden, 32) == hidden.of_logits
    with pytest.raises(ModelError, match="cut 100% of the texts differently"):
        read_lesson(FAMILY, other, lesson, hidden, 32)


def test_without_folds_every_batch_is_read_as_it_stands(student: Bundle) -> None:
    reader = reader_of(student, uncut(student.tokenizer), None)
    assert reader.whole.encoded == FAMILY.encode(student.tokenizer, TEXTS, 32)
    random = np.random.default_rng(3)
    for _ in range(5):
        reading, places = reader.read(BATCH, random)
        assert reading is reader.whole and places is BATCH
    assert list(reader.rows()) == reader.whole.encoded


def test_with_folds_the_same_texts_come_in_other_pieces(student: Bundle) -> None:
    """Of a vocabulary that was cut before, too: ids are the student's all the same."""
    some = kept_without(student.tokenizer, [student.tokenizer.convert_tokens_to_ids("today")])
    cut = Cut(prune_tokenizer(student.tokenizer, some), some)
    reader = reader_of(student, cut, 4)
    every = set(map(tuple, reader.rows()))
    seen: dict[str, set[tuple[int, ...]]] = {TEXTS[at]: set() for at in BATCH}
    wholes, random = 0, np.random.default_rng(3)
    for _ in range(60):
        reading, places = reader.read(BATCH, random)
        wholes += reading is reader.whole
        for text, place in zip(seen, places, strict=True):
            assert reading.lesson.texts[place] == text
            assert reading.lesson.rows[place] == TEXTS.index(text)
            assert reading.lesson.labels[place] == TRUTH[TEXTS.index(text)]
            row = reading.encoded[place]
            assert student.tokenizer.decode(row, skip_special_tokens=True).replace(" ##", "") == text
            assert reading.alike[place] == (row == FAMILY.encode(student.tokenizer, [text], 32)[0])
            seen[text].add(tuple(row))
    assert 0 < wholes < 60
    assert all(len(rows) > 1 for rows in seen.values())
    assert set().union(*seen.values()) <= every


def test_a_student_taught_with_folds_reads_a_word_that_its_vocabulary_has_lost(student: Bundle, tmp_path: Path) -> None:
    """`parcel` leaves the vocabulary after training: one learned it in letters too, the other never did."""
    words = [student.tokenizer.convert_tokens_to_ids(word) for word in ("parcel", "track", "where", "late", "here")]
    cut = kept_without(student.tokenizer, words)
    letters = Cut(prune_tokenizer(student.tokenizer, cut), cut)
    chosen = [at for at, text in enumerate(TEXTS) if "parcel" in text]
    assert len(chosen) == 32
    checked = Split(TEXTS, TRUTH)
    surprise = {}
    for folds in (None, 4):
        bundle = FAMILY.load_pretrained(tiny_model(tmp_path / str(folds)), LABELS)
        settings = StudentTraining.model_validate(STUDENT_TRAINING | {"vocabulary_folds": folds})
        learn(
            FAMILY,
            bundle,
            lesson_for(bundle),
            checked,
            WEIGHTS,
            settings,
            max_length=32,
            seed=1,
            phase="test",
            epochs=settings.epochs,
            keeper=Unkept(),
        )
        rows = letters.encode(FAMILY, [TEXTS[at] for at in chosen], 32)
        logits = predict_logits(FAMILY, bundle.model, bundle.tokenizer, rows)
        surprise[folds] = float(torch.nn.functional.cross_entropy(logits, torch.tensor(TRUTH)[chosen]))
    assert surprise[4] < surprise[None] / 2
