"""What a student with other tokens learns, held against loops over texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.bundle import Bundle
from pipelines.config import Task, TokenLosses
from pipelines.errors import ModelError
from pipelines.families import sequence_family_of
from pipelines.families.fresh import train_tokenizer
from pipelines.fanning import Serial
from pipelines.sequences.labelling import STORE, write_labels
from pipelines.sequences.lessons import lesson_from_labels
from pipelines.techniques.across_tokenizers import AlignedSignals
from pipelines.techniques.token_learning import TokenLesson, lesson_loss
from pipelines.token_signals import TopKRows, read_token_signals
from tests.sequence_bundles import TASKS, split_of, torch_bundle
from tests.sequence_recipes import TOKEN_LOSSES, sequence_recipe
from tests.tiny_generators import LINES

ULD = TOKEN_LOSSES | {"divergence": "uld", "weight": 2.0, "cross_entropy": 0.5, "chunk_rows": 7}
TEXTS = {"rows": 6, "prompt_tokens": 4, "max_new_tokens": 8, "temperature": 1.0, "replace": False}
WRITING = ("text-generation", "text-to-text")


@pytest.fixture(scope="module", params=WRITING)
def labelled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Path]:
    """A teacher's signals on the data and on texts of its own."""
    task, folder = TASKS[request.param], tmp_path_factory.mktemp(request.param)
    return task, write(folder, task, TEXTS)


def write(folder: Path, task: Task, texts: dict[str, Any] | None) -> Path:
    family, teacher = teacher_of(folder, task)
    label = sequence_recipe(task.type, label__texts=texts).label
    facts = {"label": label.model_dump()}
    examples = family.examples(teacher, split_of(task), task.max_length)
    write_labels(folder / "signals", (folder, family, teacher), examples, label, facts, task, Serial())
    return folder


def teacher_of(folder: Path, task: Task) -> tuple[Any, Bundle]:
    family = sequence_family_of(task)
    return family, family.load(torch_bundle(folder / "teacher", task))


def student_of(folder: Path, task: Task, tokens: int = 270) -> Bundle:
    """A model of the same kind whose tokenizer was trained on part of the text."""
    _, bundle = teacher_of(folder, task)
    torch.manual_seed(3)
    wanted = sequence_recipe(task.type, distill__student=scratch(task, tokens)).distill.student
    tokenizer = train_tokenizer(wanted.tokenizer, LINES[:9], task.max_length)  # type: ignore[union-attr]
    bundle.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return Bundle(bundle.model, tokenizer, {})


def scratch(task: Task, tokens: int) -> dict[str, Any]:
    return {
        "kind": "scratch",
        "architecture": "gpt2",
        "sizes": {},
        "tokenizer": {"kind": "byte_bpe", "vocab_size": tokens},
    }


def lesson(folder: Path, task: Task, student: Bundle, **losses: Any) -> TokenLesson:
    weights = TokenLosses.model_validate(ULD | losses)
    family, split = sequence_family_of(task), split_of(task)
    return lesson_from_labels(folder / "signals", family, student, split, task, weights, "distill")


def test_the_same_tokens_are_read_as_they_were_stored(labelled: tuple[Task, Path]) -> None:
    task, folder = labelled
    _, same = teacher_of(folder, task)
    found = lesson(folder, task, same, divergence="forward_kl")
    assert not isinstance(found.signals, AlignedSignals)
    assert found.signals is not None
    assert len(found.examples) == len(found.signals)


def test_tokens_that_differ_are_a_hard_error(labelled: tuple[Task, Path]) -> None:
    task, folder = labelled
    with pytest.raises(ModelError) as error:
        lesson(folder, task, student_of(folder, task), divergence="jsd")
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "student (BPE, 270 tokens) and teacher (",
        "disagree on token id 0",
        "distill.losses.divergence jsd",
        "set it to uld",
        "label.texts",
    ):
        assert part in message


def texts_read(tokenizer: Any, ids: list[int]) -> list[str]:
    """What has been read after each token; an end of text is a line's end."""
    whole = [tokenizer.decode(ids[: at + 1]).replace(tokenizer.eos_token, "\n") for at in range(len(ids))]
    return [text if "\N{REPLACEMENT CHARACTER}" not in text else "?" for text in whole]


def slow_loss(task: Task, folder: Path, student: Bundle, found: TokenLesson) -> tuple[float, int]:
    """The loss over the data's examples with every logit in memory, and how many predictions have a partner.

    Partners are searched by the text that was read, from the beginning of the data on; the last one counts.
    """
    family, teacher = teacher_of(folder, task)
    split = split_of(task)
    sides = []
    for side in (student, teacher):
        examples = family.examples(side, split, task.max_length)
        reads: list[Any] = []
        for row, example in enumerate(examples):
            if task.type == "text-to-text":
                before = texts_read(side.tokenizer, list(example.classes[:-1]))
                reads += [(row, read) for read in ["", *before]]
            else:
                reads += [None] * len(example.classes)
        if task.type == "text-generation":
            stream = [examples[0].ids[0], *(token for example in examples for token in example.classes)]
            reads = [(0, read) for read in texts_read(side.tokenizer, stream)[:-1]]
        sides.append((examples, reads))
    (ours, our_reads), (_, their_reads) = sides
    stored = read_token_signals(folder / "signals" / STORE)
    rows = stored.rows(range(len(stored)))
    assert isinstance(rows, TopKRows)
    inputs = family.collate(student, ours)
    with torch.no_grad():
        given = family.rows(student.model, inputs)
        logits = given.head(given.features).double()
    total, heard = 0.0, 0
    last = {read: at for at, read in enumerate(our_reads)}
    for at, read in enumerate(our_reads):
        q = logits[at].softmax(-1)
        total -= 0.5 * float(q[inputs.classes[at]].log())
        if read[1].endswith("?") or last[read] != at or read not in their_reads:
            continue
        heard += 1
        partner = len(their_reads) - 1 - their_reads[::-1].index(read)
        p = np.sort(np.exp(rows.log_probs[partner].astype(np.float64)))[::-1]
        tops = q.sort(descending=True).values.numpy()
        k = len(p)
        total += 2.0 * (float(np.abs(p - tops[:k]).sum()) + abs((1 - p.sum()) - tops[k:].sum()))
    return total / len(our_reads), heard


def test_the_loss_is_that_of_a_search_by_text(labelled: tuple[Task, Path]) -> None:
    task, folder = labelled
    student = student_of(folder, task)
    found, family = lesson(folder, task, student), sequence_family_of(task)
    assert isinstance(found.signals, AlignedSignals)
    count = len(family.examples(student, split_of(task), task.max_length))
    expected, heard = slow_loss(task, folder, student, found)
    _, numbers = found.signals.rows(range(count))
    assert int((numbers >= 0).sum()) == heard > len(numbers) / 8
    got = lesson_loss(family, student, found, range(count), TokenLosses.model_validate(ULD))
    assert got.item() == pytest.approx(expected, abs=2e-3)


def test_the_teachers_own_texts_are_told_again(labelled: tuple[Task, Path]) -> None:
    task, folder = labelled
    student, family = student_of(folder, task), sequence_family_of(task)
    found = lesson(folder, task, student)
    assert isinstance(found.signals, AlignedSignals)
    count = len(family.examples(student, split_of(task), task.max_length))
    assert count < len(found.examples) <= count + TEXTS["rows"]
    _, numbers = found.signals.rows(range(count, len(found.examples)))
    assert (numbers >= 0).any()
    alone = lesson(folder, task, student, weight=0.0)
    assert alone.signals is None
    assert [one.seen for one in alone.examples] == [one.seen for one in found.examples]


def test_texts_in_place_of_the_data(tmp_path: Path) -> None:
    task = TASKS["text-generation"]
    folder = write(tmp_path, task, TEXTS | {"replace": True})
    found = lesson(folder, task, student_of(folder, task))
    assert isinstance(found.signals, AlignedSignals)
    assert 0 < len(found.examples) <= TEXTS["rows"]
    assert found.signals.share > 0
