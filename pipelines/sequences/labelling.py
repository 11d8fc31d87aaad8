"""A teacher's one pass over its students' examples, and the texts that it writes for them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.bundle import Bundle, read_json, write_json
from pipelines.config import SampledSignals, TeacherTexts, TokenLabel
from pipelines.errors import ModelError
from pipelines.families.sequences import Example, SequenceFamily
from pipelines.progress import Progress
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


def write_labels(
    folder: Path,
    family: SequenceFamily,
    teacher: Bundle,
    examples: Sequence[Example],
    wanted: TokenLabel,
    facts: dict[str, Any],
    seed: int,
) -> None:
    """Let the teacher write, then read everything once; what a killed run finished is not done again.

    Raises ModelError where the teacher writes nothing although the recipe asks for its texts.
    """
    _begin(folder, facts)
    teacher.tokenizer.name_or_path = ""
    teacher.tokenizer.save_pretrained(folder / TOKENIZER)
    written = _written(folder, family, teacher, examples, wanted.texts, seed)
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
        for start in range(begun, len(everything), wanted.batch_size):
            batch = everything[start : start + wanted.batch_size]
            _label_batch(store, family, teacher, batch, start, k, wanted, seed)
            progress.advance(len(batch))


def _begin(folder: Path, facts: dict[str, Any]) -> None:
    """Keep what a run of the same facts left, and remove what another one did."""
    path = folder / FACTS
    if not path.exists() or read_json(path) != facts:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(path, facts)


def _label_batch(
    store: TokenSignalsWriter,
    family: SequenceFamily,
    teacher: Bundle,
    batch: Sequence[Example],
    start: int,
    k: int,
    wanted: TokenLabel,
    seed: int,
) -> None:
    with torch.inference_mode():
        rows = family.rows(teacher.model, family.collate(teacher, batch))
        at = 0
        for index, example in enumerate(batch, start):
            logits = rows.head(rows.features[at : at + len(example.classes)])
            at += len(example.classes)
            said: TopKRows | SampledRows = (
                sample_of(logits, k, example_generator(seed, index))
                if isinstance(wanted.signals, SampledSignals)
                else top_k_of(logits, k)
            )
            if index >= store.written:
                store.append(index, np.array(example.seen, dtype=np.int64), said)


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
