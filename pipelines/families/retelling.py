"""One text in the tokens of two tokenizers: where the predictions of both stand in it, and a model's own texts told to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipelines.bundle import Bundle
from pipelines.data.clean import Split
from pipelines.families.base import TokenIds
from pipelines.families.causal import beginning
from pipelines.families.seq2seq import TextToText
from pipelines.families.sequences import Example

#: What stands where bytes are no character, such as the first half of one.
BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Told:
    """A text that a model wrote: what it was given, its answer, whether that came to its end, and `reads`: how many characters
    the writer had read before each of its predictions, -1 where these were no whole characters."""

    given: str
    begins: bool
    answer: str
    ended: bool
    reads: list[int]


@dataclass(frozen=True)
class Retold:
    """The same as an example of another tokenizer, and how many characters have been read before each of its predictions."""

    example: Example
    reads: list[int]


class Retelling(Protocol):
    """What differs between texts that go on and texts that answer."""

    def reads(self, tokenizer: Any, split: Split) -> list[int]:
        """How many characters of a split have been read before each prediction of its examples; a row's end counts one."""

    def told(self, tokenizer: Any, example: Example) -> Told:
        """A text that a model wrote."""

    def retold(self, bundle: Bundle, told: Told) -> Retold | None:
        """The text for another model; None where nothing of it is left to predict.

        The last token of a text that was broken off may be the beginning of another token, and is left away.
        """


class RetoldContinuations:
    """Texts of causal models: one stream, which goes on from what was given."""

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length

    def reads(self, tokenizer: Any, split: Split) -> list[int]:
        """As Retelling has it."""
        found, start = [], 0
        for text, ends in zip(split.texts, _ends(tokenizer, split.texts), strict=True):
            after = start + len(text) + 1
            found += [*([start] * len(beginning(tokenizer))), *(start + end for end in ends), after]
            start = after
        return found[:-1]  # nothing is predicted after the last end

    def told(self, tokenizer: Any, example: Example) -> Told:
        """As Retelling has it; of what was given, the text in which the answer stands."""
        first = example.places[0] + 1
        marks = {tokenizer.bos_token_id, tokenizer.eos_token_id}
        last = max((at for at, token in enumerate(example.ids[:first]) if token in marks), default=-1)
        given, ended = example.ids[last + 1 : first], example.classes[-1] == tokenizer.eos_token_id
        text, reads = _reads_of(tokenizer, given, example.classes, ended)
        begun = _decoded(tokenizer, given).rstrip(BROKEN)
        begun = begun if text.startswith(begun) else ""
        return Told(begun, last >= 0, text[len(begun) :], ended, reads)

    def retold(self, bundle: Bundle, told: Told) -> Retold | None:
        """As Retelling has it."""
        tokenizer, text = bundle.tokenizer, told.given + told.answer
        end = [tokenizer.eos_token_id]
        lead = (beginning(tokenizer) or end) if told.begins else []
        ids = [*lead, *_ids(tokenizer, text), *(end if told.ended else [])]
        ends = [*([0] * len(lead)), *_ends(tokenizer, [text])[0], *([len(text) + 1] if told.ended else [])]
        ids = (ids if told.ended else ids[:-1])[: self._max_length]
        places = [at for at in range(len(ids) - 1) if ends[at + 1] > len(told.given)]
        if not places:
            return None
        return Retold(Example(ids, places, [ids[at + 1] for at in places]), [ends[at] for at in places])


class RetoldAnswers:
    """Texts of encoder-decoders: an answer to a text of its own."""

    def __init__(self, max_length: int, max_target_length: int) -> None:
        self._max_length, self._max_target_length = max_length, max_target_length

    def reads(self, tokenizer: Any, split: Split) -> list[int]:
        """As Retelling has it."""
        found, start = [], 0
        for target, ends in zip(split.targets, _ends(tokenizer, split.targets), strict=True):
            found += [start, *(start + end for end in ends[: self._max_target_length - 1])]
            start += len(target) + 1
        return found

    def told(self, tokenizer: Any, example: Example) -> Told:
        """As Retelling has it."""
        ended = example.classes[-1] == tokenizer.eos_token_id
        text, reads = _reads_of(tokenizer, [], example.classes, ended)
        return Told(_decoded(tokenizer, example.ids), True, text, ended, reads)

    def retold(self, bundle: Bundle, told: Told) -> Retold | None:
        """As Retelling has it."""
        split = Split([told.given], targets=[told.answer])
        example = TextToText(self._max_target_length).examples(bundle, split, self._max_length)[0]
        reads = self.reads(bundle.tokenizer, split)
        if not told.ended:
            kept = len(reads) - 2
            example = replace(example, places=range(kept), classes=example.classes[:kept])
        return Retold(example, reads[: len(example.places)]) if example.places else None


def _ids(tokenizer: Any, text: str) -> TokenIds:
    ids: TokenIds = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _ends(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """For each text where each of its tokens ends, in characters."""
    if not texts:
        return []
    offsets = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [[end for _, end in row] for row in offsets]


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _reads_of(tokenizer: Any, given: TokenIds, answer: Sequence[int], ended: bool) -> tuple[str, list[int]]:
    """The text of what was given and answered, and how much of it had been read before each token of the answer.

    By decoding what stands before: a model may cut its own text otherwise than its tokenizer would.
    """
    text = _decoded(tokenizer, [*given, *answer])
    before = [_decoded(tokenizer, [*given, *answer[:at]]) for at in range(len(answer))]
    text = text if ended else text.rstrip(BROKEN)
    return text, [len(part) if text.startswith(part) else -1 for part in before]
