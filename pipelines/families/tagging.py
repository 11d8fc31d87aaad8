"""Token classification: a tag for each word, read off the word's first token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.bundle import LINEAGE, Bundle, read_lineage
from pipelines.config import FreshModel, FreshStudent, OnPolicy, TeacherTexts
from pipelines.data.clean import CleanData, Split
from pipelines.errors import ModelError
from pipelines.families.batching import MODEL_FILE, batch_of_ids
from pipelines.families.fresh import resized_model
from pipelines.families.loading import READY, Trusted, check_labels, few, load_model, load_tokenizer, require_model
from pipelines.families.sequences import Batch, Example, Feed, Rows
from pipelines.techniques.exporting import PARITY_TEXTS, open_session
from pipelines.techniques.tracing import Axes, save_graph, trace, traceable


class Tagger:
    """A tag a word. See families/sequences.py for what each method promises."""

    auto = "AutoModelForTokenClassification"

    def load(self, folder: Path) -> Bundle:
        require_model(folder, LINEAGE)
        return Bundle(load_model(folder, self.auto), load_tokenizer(folder), read_lineage(folder))

    def load_pretrained(self, folder: Path, data: CleanData, trusted: Trusted | None) -> Bundle:
        require_model(folder)
        names = dict(enumerate(data.labels))
        model = load_model(
            folder,
            self.auto,
            fresh_head=True,
            trusted=trusted,
            num_labels=len(names),
            id2label=names,
            label2id={tag: at for at, tag in names.items()},
        )
        return Bundle(model, load_tokenizer(folder), {})

    def load_ready(self, folder: Path, data: CleanData, trusted: Trusted | None) -> Bundle:
        require_model(folder)
        model = load_model(folder, self.auto, trusted=trusted, remedy=READY)
        check_labels(folder, tags_of(model), data.labels)
        _reorder_tags(model, data.labels)
        return Bundle(model, load_tokenizer(folder), {})

    def fresh(self, choice: FreshModel, data: CleanData, max_length: int) -> Bundle:
        raise ModelError(
            f"{choice.place}: a tagger is fine-tuned from a pretrained body and cannot begin from scratch; name a source"
        )

    def resized(self, teacher: Bundle, choice: FreshStudent) -> Bundle:
        return resized_model(self.auto, teacher, choice)

    def examples(self, bundle: Bundle, split: Split, max_length: int) -> list[Example]:
        """An example a row; words beyond the longest length have no prediction."""
        numbers = {tag: at for at, tag in enumerate(tags_of(bundle.model))}
        words = [text.split() for text in split.texts]
        if not words:
            return []
        encoded = bundle.tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
        found = []
        for at, target in enumerate(split.targets):
            tags = target.split()
            unknown = set(tags) - set(numbers)
            if unknown:
                raise ModelError(f"the model has no tag {few(unknown)}; it has {few(set(numbers))}")
            places = first_tokens(encoded.word_ids(at))
            found.append(
                Example(encoded["input_ids"][at], list(places), [numbers[tags[word]] for word in places.values()])
            )
        return found

    def collate(self, bundle: Bundle, examples: Sequence[Example]) -> Batch:
        return batch_of_ids(bundle, examples)

    def rows(self, model: Any, batch: Batch) -> Rows:
        # A tagger's classes are few: its logits are their own features.
        return Rows(model(**batch.inputs).logits[batch.rows, batch.places], nn.Identity())

    def write(
        self, bundle: Bundle, examples: Sequence[Example], how: TeacherTexts | OnPolicy, seed: int
    ) -> list[Example]:
        return []

    def row_lengths(self, bundle: Bundle, split: Split, examples: Sequence[Example]) -> list[int]:
        return [len(example.classes) for example in examples]

    def class_names(self, bundle: Bundle) -> list[str]:
        return tags_of(bundle.model)

    def export(self, bundle: Bundle, out: Path, max_length: int) -> Sequence[str]:
        twin = traceable(bundle.model)
        ids = torch.arange(10).reshape(2, 5)
        mask = torch.ones_like(ids)
        mask[1, 3:] = 0  # from an unpadded sample the mask would leave the graph
        inputs: Axes = {"input_ids": ("batch", "length"), "attention_mask": ("batch", "length")}
        outputs: Axes = {"logits": ("batch", "length", bundle.model.config.num_labels)}
        save_graph(trace(_Tags(twin), (ids, mask), inputs, outputs), out / MODEL_FILE)
        return [MODEL_FILE]

    def check_export(self, bundle: Bundle, out: Path, examples: Sequence[Example], tolerance: float) -> float:
        session = open_session(out / MODEL_FILE, threads=1)
        worst = 0.0
        for batch in [examples[:PARITY_TEXTS], *([example] for example in examples[:PARITY_TEXTS])]:
            inputs = self.collate(bundle, batch).inputs
            mask = inputs["attention_mask"].numpy().astype(bool)
            got = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})[0]
            with torch.inference_mode():
                expected = bundle.model(**inputs).logits.numpy()
            worst = max(worst, float(abs(got - expected)[mask].max()))
        if not worst <= tolerance:
            raise ModelError(
                f"{out / MODEL_FILE}: exported logits differ from torch by {worst:.2e}, quantize.parity allows {tolerance:.0e}; "
                "do not publish this file"
            )
        return worst

    def feeds(self, bundle: Bundle, out: Path, examples: Sequence[Example]) -> dict[str, list[Feed]]:
        inputs = [self.collate(bundle, [example]).inputs for example in examples]
        return {MODEL_FILE: [{name: value.numpy() for name, value in one.items()} for one in inputs]}

    def text_bytes(self, split: Split) -> int:
        return sum(len(target.split()) for target in split.targets)


class _Tags(nn.Module):  # type: ignore[misc]
    """A tagger with two inputs and one output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits


def _reorder_tags(model: Any, tags: Sequence[str]) -> None:
    """Permute the head so that its classes are these tags, as those of a student with a head of its own are."""
    order = [tags_of(model).index(tag) for tag in tags]
    body = f"{model.base_model_prefix}."
    heads = [part for name, part in model.named_modules() if isinstance(part, nn.Linear) and not name.startswith(body)]
    with torch.no_grad():
        for weight in heads[-1].parameters():
            weight.copy_(weight[order])
    model.config.id2label = dict(enumerate(tags))
    model.config.label2id = {tag: at for at, tag in enumerate(tags)}


def first_tokens(words: Sequence[int | None]) -> dict[int, int]:
    """Place of the first token of each word -> the word's number."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    for place, word in enumerate(words):
        if word is not None and word not in seen:
            seen.add(word)
            found[place] = word
    return found


def tags_of(model: Any) -> list[str]:
    """A tagger's tags, in the order of its classes."""
    return [model.config.id2label[at] for at in range(model.config.num_labels)]
