"""What a student learns from, in its own tokens: as the teacher left it where both have the same, else texts, or signals where both stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.bundle import Bundle
from pipelines.config import Task, TokenLosses
from pipelines.data.clean import Split
from pipelines.errors import ModelError
from pipelines.families import retelling_of
from pipelines.families.loading import load_tokenizer
from pipelines.families.retelling import Retelling
from pipelines.families.sequences import Example, SequenceFamily
from pipelines.sequences.labelling import TOKENIZER, Labelled, read_labels
from pipelines.techniques.across_tokenizers import AlignedSignals, Ids, align, disagreement
from pipelines.techniques.token_learning import TokenLesson


def lesson_from_labels(
    folder: Path,
    family: SequenceFamily,
    student: Bundle,
    split: Split,
    task: Task,
    losses: TokenLosses,
    stage: str,
) -> TokenLesson:
    """What `label` left in a folder, for a student. `split` is the training rows, `stage` whose losses these are.

    Raises ModelError where the student's tokens are not the teacher's and the losses compare them one by one.
    """
    teacher = Bundle(student.model, load_tokenizer(folder / TOKENIZER), {})
    ours, theirs = (family.examples(side, split, task.max_length) for side in (student, teacher))
    labelled = read_labels(folder, theirs)
    reason = disagreement(student.tokenizer, teacher.tokenizer, [one.ids for one in ours], [one.ids for one in theirs])
    if reason is None:
        return TokenLesson(labelled.examples, labelled.signals)
    retelling = retelling_of(task)
    if retelling is None:
        raise ModelError(f"{reason}; give the student the teacher's tokenizer")
    if losses.weight > 0 and losses.divergence != "uld":
        raise ModelError(
            f"{reason}; {stage}.losses.divergence {losses.divergence} compares token by token: set it to uld, set weight to 0 to learn "
            "from texts alone (label.texts), or give the student the teacher's tokenizer"
        )
    told = [
        *(_data(retelling, student, teacher, split, ours, theirs) if labelled.given else []),
        *_written(retelling, student, teacher, labelled),
    ]
    examples = [example for example, _ in told]
    if losses.weight == 0:
        return TokenLesson(examples, None)
    return TokenLesson(examples, _aligned(labelled, [partners for _, partners in told]))


#: An example of the student's, and for each of its predictions the number of the teacher's in the store, or -1.
Partnered = tuple[Example, Ids]


def _data(
    retelling: Retelling,
    student: Bundle,
    teacher: Bundle,
    split: Split,
    ours: Sequence[Example],
    theirs: Sequence[Example],
) -> list[Partnered]:
    """The data's rows, cut by both."""
    reads = [retelling.reads(side.tokenizer, split) for side in (student, teacher)]
    counts = [[len(example.classes) for example in side] for side in (ours, theirs)]
    if [len(one) for one in reads] != [sum(one) for one in counts]:
        raise ModelError(
            f"the training rows hold {[sum(one) for one in counts]} predictions of student and teacher, and were read at "
            f"{[len(one) for one in reads]} places"
        )
    partners = _partners(reads[0], reads[1], 0)
    return list(zip(ours, np.split(partners, np.cumsum(counts[0])[:-1]), strict=True))


def _written(retelling: Retelling, student: Bundle, teacher: Bundle, labelled: Labelled) -> Iterator[Partnered]:
    """The teacher's own texts. One that leaves the student nothing to predict is left out."""
    start = sum(len(example.classes) for example in labelled.given)
    for example in labelled.written:
        told = retelling.told(teacher.tokenizer, example)
        again = retelling.retold(student, told)
        if again is not None:
            yield again.example, _partners(again.reads, told.reads, start)
        start += len(example.classes)


def _partners(ours: Sequence[int], theirs: Sequence[int], start: int) -> Ids:
    """For each prediction of the student's the number of the teacher's in the store, where these begin at `start`, or -1."""
    partners = np.full(len(ours), -1, np.int64)
    mine, other = align(ours, theirs)
    partners[mine] = other + start
    return partners


def _aligned(labelled: Labelled, partners: Sequence[Ids]) -> AlignedSignals:
    for index, example in enumerate(labelled.examples):
        labelled.signals.check_tokens(index, example.seen)
    found = AlignedSignals(labelled.signals, partners)
    if found.share == 0:
        raise ModelError(
            "no prediction of the student stands where one of the teacher's does: their tokens end nowhere together; set weight to 0 and "
            "learn from label.texts"
        )
    return found
