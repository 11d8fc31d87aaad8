"""A teacher's one pass over its students' examples, and the texts that it writes for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.bundle import Bundle, read_json, write_json
from pipelines.config import SampledSignals, Task, TeacherTexts, TokenLabel
from pipelines.errors import ModelError
from pipelines.families import sequence_family_of
from pipelines.families.sequences import Example, SequenceFamily
from pipelines.fanning import Batches, Fan, map_large, pieces_of
from pipelines.progress import Progress
from pipelines.reproducible import fixed
from pipelines.token_signals import SampledRows, TokenSignals, TokenSignalsWriter, TopKRows, read_token_signals
from pipelines.token_signals.choosing import example_generator, sample_of, top_k_of

FACTS = "facts.json"
WRITTEN = "written.json"
STORE = "store"
#: The teacher's tokenizer: what the numbers in a store mean.
TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Labelled:
    """What `label` left: examples of the data (none where they are replaced), then those that the teacher wrote, and its word on
    each of their predictions."""

    given: list[Example]
    written: list[Example]
    signals: TokenSignals

    @property
    def examples(self) -> list[Example]:
        """All of them, in the order of the signals."""
        return [*self.given, *self.written]


@dataclass(frozen=True)
class Asking:
    """A teacher's word on pieces of the examples. It travels to another process as the folder that it was loaded from."""

    folder: Path
    family: SequenceFamily
    teacher: Bundle
    task: Task
    wanted: TokenLabel
    k: int

    def __call__(self, piece: Sequence[Mapping[int, Example]]) -> Batches:
        """Of each batch of numbered examples, by `NUMBER/FIELD`, the fields of what is stored of each."""
        with torch.inference_mode(), fixed(self.task, self.task.threads):
            return [dict(self._ask(batch)) for batch in piece]

    def _ask(self, batch: Mapping[int, Example]) -> Iterator[tuple[str, np.ndarray]]:
        rows = self.family.rows(self.teacher.model, self.family.collate(self.teacher, list(batch.values())))
        at = 0
        for number, example in batch.items():
            logits = rows.head(rows.features[at : at + len(example.classes)])
            at += len(example.classes)
            said: TopKRows | SampledRows = (
                sample_of(logits, self.k, example_generator(self.task.seed, number))
                if isinstance(self.wanted.signals, SampledSignals)
                else top_k_of(logits, self.k)
            )
            yield from ((f"{number}/{each.name}", getattr(said, each.name)) for each in fields(said))

    def __reduce__(self) -> tuple[Callable[..., Asking], tuple[Path, Task, TokenLabel, int]]:
        return _open_asking, (self.folder.absolute(), self.task, self.wanted, self.k)


def _open_asking(folder: Path, task: Task, wanted: TokenLabel, k: int) -> Asking:
    family = sequence_family_of(task)
    return Asking(folder, family, family.load(folder), task, wanted, k)


def write_labels(
    folder: Path,
    taught: tuple[Path, SequenceFamily, Bundle],
    examples: Sequence[Example],
    wanted: TokenLabel,
    facts: dict[str, Any],
    task: Task,
    fan: Fan,
) -> None:
    """Let the teacher write, then read everything once, the same bytes whoever does it; what a killed run finished is not done again.

    `taught` is the teacher, its family, and the folder that it was loaded from. Raises ModelError where it writes nothing although the
    recipe asks for its texts.
    """
    place, family, teacher = taught
    _begin(folder, facts)
    teacher.tokenizer.name_or_path = ""
    teacher.tokenizer.save_pretrained(folder / TOKENIZER)
    written = _written(folder, family, teacher, examples, wanted.texts, task.seed)
    everything = [*_given(examples, wanted.texts is not None and wanted.texts.replace), *written]
    classes = _classes(family, teacher, everything[:1])
    k = wanted.signals.k if isinstance(wanted.signals, SampledSignals) else min(wanted.signals.k, classes - 1)
    vocabulary = max(classes, len(teacher.tokenizer))
    with (
        TokenSignalsWriter(
            folder / STORE,
            kind=wanted.signals.kind,
            k=k,
            vocabulary=vocabulary,
            facts={"examples": len(everything)},
        ) as store,
        Progress("label", len(everything)) as progress,
    ):
        # From a whole batch on: what shares a forward pass decides the last bits of its logits.
        begun = store.written - store.written % wanted.batch_size
        progress.advance(begun)
        batches = [
            dict(enumerate(everything[start : start + wanted.batch_size], start))
            for start in range(begun, len(everything), wanted.batch_size)
        ]
        asking = Asking(place, family, teacher, task, wanted, k)
        said = chain.from_iterable(map_large(fan, asking, pieces_of(fan, batches), folder / "pieces"))
        for batch, answers in zip(batches, said, strict=True):
            _store(store, batch, answers, SampledRows if isinstance(wanted.signals, SampledSignals) else TopKRows)
            progress.advance(len(batch))


def _store(
    store: TokenSignalsWriter,
    batch: Mapping[int, Example],
    answers: Mapping[str, np.ndarray],
    kind: type[TopKRows] | type[SampledRows],
) -> None:
    for number, example in batch.items():
        if number >= store.written:
            said = kind(*(answers[f"{number}/{each.name}"] for each in fields(kind)))
            store.append(number, np.array(example.seen, dtype=np.int64), said)


def _begin(folder: Path, facts: dict[str, Any]) -> None:
    """Keep what a run of the same facts left, and remove what another one did."""
    path = folder / FACTS
    if not path.exists() or read_json(path) != facts:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(path, facts)


def _classes(family: SequenceFamily, teacher: Bundle, examples: Sequence[Example]) -> int:
    """How many classes the teacher tells apart."""
    with torch.inference_mode():
        rows = family.rows(teacher.model, family.collate(teacher, examples))
        return int(rows.head(rows.features[:1]).shape[-1])


def _written(
    folder: Path,
    family: SequenceFamily,
    teacher: Bundle,
    examples: Sequence[Example],
    wanted: TeacherTexts | None,
    seed: int,
) -> list[Example]:
    """The teacher's own texts, from an earlier run where there was one."""
    if wanted is None:
        return []
    path = folder / WRITTEN
    if not path.exists():
        chosen = np.random.default_rng(seed).permutation(len(examples))[: wanted.rows]
        made = family.write(teacher, [examples[index] for index in chosen], wanted, seed)
        if not made:
            raise ModelError(
                "label.texts: the teacher wrote nothing; set it to null, or raise max_new_tokens or the temperature"
            )
        record = [[list(one.ids), list(one.places), list(one.classes)] for one in made]
        partial = path.with_suffix(".partial")
        write_json(partial, record)
        partial.replace(path)
    return [Example(*one) for one in read_json(path)]


def _given(examples: Sequence[Example], replace: bool) -> list[Example]:
    return [] if replace else list(examples)


def read_labels(folder: Path, examples: Sequence[Example]) -> Labelled:
    """The examples and signals that `write_labels` left, given the data's examples; DataError where they are damaged."""
    written = [Example(*one) for one in read_json(folder / WRITTEN)] if (folder / WRITTEN).exists() else []
    texts = read_json(folder / FACTS)["label"]["texts"]
    given = _given(examples, texts is not None and texts["replace"])
    return Labelled(given, written, read_token_signals(folder / STORE))
