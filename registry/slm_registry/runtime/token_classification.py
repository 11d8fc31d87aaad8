"""Token classification (names, places, parts of speech) with numpy, onnxruntime and tokenizers alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from slm_registry.errors import InputTypeError
from slm_registry.runtime.arguments import at_least_one, checked_texts
from slm_registry.runtime.encoders import Encoder, softmax
from slm_registry.runtime.text_classification import Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"\S+")
_OUTSIDE = "O"
_BEGIN, _INSIDE = "B-", "I-"


class Span(NamedTuple):
    """Words of one kind: `text[start:end]` of the text, in characters. `score` is the mean probability of its words' tags."""

    label: str
    text: str
    start: int
    end: int
    score: float


class _Window(NamedTuple):
    """Words `start` to `end` of a text, of which `first` to `last` are labelled here; the others are context."""

    text: int
    start: int
    end: int
    first: int
    last: int


class TokenClassifier(Encoder):
    """A tagger from config.json, tokenizer.json, model.onnx and, if there is one, tokenizer_config.json.

    Words are what white space separates; a word's first token says its tag, as in training.
    """

    task = "token-classification"
    shape = "[N, T, C]"

    def try_out(self) -> None:
        self.predict(["a text to see that it answers"])

    def predict(self, texts: Sequence[str], batch_size: int | None = None) -> list[list[Span]]:
        """The spans of each text. Raises as `predict_words` does.

        B-X begins a span, I-X goes on with one of X or begins one, O is none, and a tag of any other form is a span a word.
        """
        rows = checked_texts(texts)
        places = [[(found.start(), found.end()) for found in _WORD.finditer(text)] for text in rows]
        words = [[text[start:end] for start, end in spans] for text, spans in zip(rows, places, strict=True)]
        tagged = self.predict_words(words, batch_size)
        return [_spans(*row) for row in zip(rows, places, tagged, strict=True)]

    def predict_words(
        self, sentences: Sequence[Sequence[str]], batch_size: int | None = None
    ) -> list[list[Prediction | None]]:
        """The most probable tag of each word; None for a word of which the tokenizer leaves nothing.

        Sentences longer than `max_length` tokens are read in windows that overlap by half; a word is labelled where most
        of its surroundings are seen. Raises InputTypeError for anything but lists of words, UsageError after `close`.
        """
        tokenizer, session = self._opened()
        if isinstance(sentences, str | bytes):
            raise InputTypeError("a list of lists of words was expected; write predict_words([words])")
        rows = [checked_texts(words) for words in sentences]
        batch_size = at_least_one("batch_size", self.batch_size if batch_size is None else batch_size)
        windows = self._windows(tokenizer, rows)
        encoded = self._encode(tokenizer, [rows[window.text][window.start : window.end] for window in windows])
        found: list[list[Prediction | None]] = [[None] * len(words) for words in rows]
        order = sorted(range(len(windows)), key=lambda index: len(encoded[index].ids))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            encodings = [encoded[index] for index in batch]
            logits = self._logits(session, encodings)
            for index, encoding, row in zip(batch, encodings, logits, strict=True):
                window = windows[index]
                span = self._span(len(encoding.ids), row.shape[0])
                for word, tag in self._tags(encoding, softmax(row[span])).items():
                    if window.first <= window.start + word < window.last:
                        found[window.text][window.start + word] = tag
        return found

    def _tags(self, encoding: Any, probabilities: NDArray[np.float32]) -> dict[int, Prediction]:
        """Tags of an encoding's words by their first tokens; probabilities [T, C]."""
        tags: dict[int, Prediction] = {}
        for word, row in zip(encoding.word_ids, probabilities, strict=True):
            if word is not None and word not in tags:
                best = int(row.argmax())
                tags[word] = Prediction(self.labels[best], float(row[best]))
        return tags

    def _windows(self, tokenizer: Any, rows: Sequence[Sequence[str]]) -> list[_Window]:
        """Windows of whole words that are no longer than `max_length` tokens; one for a text that fits."""
        windows = []
        for text, (words, encoding) in enumerate(zip(rows, self._encode(tokenizer, list(rows)), strict=True)):
            if not encoding.overflowing:
                windows.append(_Window(text, 0, len(words), 0, len(words)))
                continue
            sizes = [0] * len(words)
            for piece in (encoding, *encoding.overflowing):
                for word in piece.word_ids:
                    if word is not None:
                        sizes[word] += 1
            room = self.max_length - tokenizer.num_special_tokens_to_add(False)
            windows += [_Window(text, *bounds) for bounds in _bounds(sizes, room)]
        return windows


def _bounds(sizes: Sequence[int], room: int) -> list[tuple[int, int, int, int]]:
    """(start, end, first, last) of windows over words of some sizes in tokens; the last half of one begins the next."""
    found: list[tuple[int, int, int, int]] = []
    start = first = 0
    while True:
        end, used = start, 0
        # A word that alone is too long is cut by the tokenizer.
        while end < len(sizes) and (end == start or used + sizes[end] <= room):
            used += sizes[end]
            end += 1
        if end == len(sizes):
            return [*found, (start, end, first, end)]
        half = end
        while half - 1 > start and sum(sizes[half - 1 : end]) <= room // 2:
            half -= 1
        last = min(end, max(first, (half + end) // 2))
        found.append((start, end, first, last))
        start, first = half, last


def _spans(text: str, places: Sequence[tuple[int, int]], tags: Sequence[Prediction | None]) -> list[Span]:
    """Neighbouring words of one kind, put together."""
    groups: list[tuple[str, list[int]]] = []
    open_kind = None
    for word, tag in enumerate(tags):
        label = _OUTSIDE if tag is None else tag.label
        inside = label.startswith(_INSIDE)
        kind = label[2:] if inside or label.startswith(_BEGIN) else label
        if inside and kind == open_kind:
            groups[-1][1].append(word)
        elif label != _OUTSIDE:
            groups.append((kind, [word]))
        open_kind = kind if label.startswith((_BEGIN, _INSIDE)) else None
    return [_span(text, places, tags, kind, words) for kind, words in groups]


def _span(
    text: str,
    places: Sequence[tuple[int, int]],
    tags: Sequence[Prediction | None],
    kind: str,
    words: Sequence[int],
) -> Span:
    start, end = places[words[0]][0], places[words[-1]][1]
    scores = [tag.probability for word in words if (tag := tags[word]) is not None]
    return Span(kind, text[start:end], start, end, sum(scores) / len(scores))
