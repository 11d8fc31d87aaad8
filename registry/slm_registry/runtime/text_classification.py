"""Text classification with numpy, onnxruntime and tokenizers alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from slm_registry.errors import CorruptError, UsageError
from slm_registry.runtime.arguments import at_least_one, checked_texts
from slm_registry.runtime.model import DEFAULT_BATCH, Model, Parts
from slm_registry.runtime.parts import length_limit, load_session, load_tokenizer, pad_id, read_json, tokenizing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Prediction(NamedTuple):
    """The most probable label of a text, and its probability."""

    label: str
    probability: float


class TextClassifier(Model):
    """A text classifier from config.json, tokenizer.json, model.onnx and, if there is one, tokenizer_config.json."""

    task = "text-classification"

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, threads: int, max_length: int | None, batch_size: int
    ) -> None:
        self.labels = _labels(config, folder)
        tokenizer_config = read_json(folder / "tokenizer_config.json", missing={})
        self.max_length = length_limit(config, tokenizer_config, max_length)
        self._pad_id = pad_id(config)
        self._pad_left = tokenizer_config.get("padding_side") == "left"
        self.batch_size = batch_size
        self._threads = threads
        tokenizer = load_tokenizer(folder / "tokenizer.json", self.max_length)
        session = load_session(folder / "model.onnx", threads)
        self._check_model(session, folder / "model.onnx")
        self._inputs = tuple(item.name for item in session.get_inputs())
        self._parts = Parts(tokenizer, session)

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        threads: int = 1,
        max_length: int | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> Self:
        """Load a bundle's folder as it is.

        `threads` is what one call computes with, `batch_size` how many texts go through the model at once. Raises
        UsageError where a file is missing or a number cannot be meant, CorruptError where a file cannot be read.
        """
        folder = Path(path)
        at_least_one("threads", threads)
        at_least_one("batch_size", batch_size)
        config = read_json(folder / "config.json")
        return cls(folder, config, threads=threads, max_length=max_length, batch_size=batch_size)

    def predict(self, texts: Sequence[str], batch_size: int | None = None) -> list[Prediction]:
        """The most probable label of each text, in the order of the texts. Raises as `predict_proba` does."""
        rows = self.predict_proba(texts, batch_size)
        best = rows.argmax(axis=1)
        return [Prediction(self.labels[index], float(row[index])) for row, index in zip(rows, best, strict=True)]

    def predict_proba(self, texts: Sequence[str], batch_size: int | None = None) -> NDArray[np.float32]:
        """Probabilities [N, C], float32, columns in the order of `labels`.

        Texts longer than `max_length` tokens are cut. Without `batch_size` the model's own is taken. Raises
        InputTypeError for anything but a sequence of str, UsageError after `close`.
        """
        import numpy as np

        tokenizer, session = self._opened()
        rows = checked_texts(texts)
        batch_size = at_least_one("batch_size", self.batch_size if batch_size is None else batch_size)
        result = np.empty((len(rows), len(self.labels)), dtype=np.float32)
        encoded = self._encode(tokenizer, rows)
        # Texts of one length share a batch, so that little of it is padding.
        order = sorted(range(len(rows)), key=lambda index: len(encoded[index].ids))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            result[batch] = _softmax(self._logits(session, [encoded[index] for index in batch]))
        return result

    def _logits(self, session: Any, encodings: Sequence[Any]) -> NDArray[np.float32]:
        """Raw scores [batch, C]. Raises CorruptError where the model cannot take what the tokenizer gives."""
        try:
            logits: NDArray[np.float32] = session.run(None, self._feed(encodings))[0]
        except Exception as error:
            raise CorruptError(
                f"the model cannot run what its tokenizer gives it: {error}; export both again"
            ) from error
        if logits.shape != (len(encodings), len(self.labels)):
            raise CorruptError(
                f"the model answers {logits.shape} to {len(encodings)} texts and {len(self.labels)} labels"
            )
        return logits

    def _encode(self, tokenizer: Any, texts: list[str]) -> list[Any]:
        with tokenizing("the tokenizer cannot encode these texts"):
            if self._threads > 1:
                return list(tokenizer.encode_batch(texts))
            # encode_batch would start threads of its own, one for each core.
            return [tokenizer.encode(text) for text in texts]

    def _feed(self, encodings: Sequence[Any]) -> dict[str, NDArray[np.int64]]:
        """The model's inputs [batch, longest], int64, padded."""
        import numpy as np

        longest = max([1, *(len(encoding.ids) for encoding in encodings)])
        feed = {name: np.zeros((len(encodings), longest), dtype=np.int64) for name in self._inputs}
        if "input_ids" in feed:
            feed["input_ids"][:] = self._pad_id
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            span = slice(longest - length, longest) if self._pad_left else slice(0, length)
            values = {"input_ids": encoding.ids, "attention_mask": 1, "token_type_ids": encoding.type_ids}
            for name, array in feed.items():
                array[row, span] = values[name]
        return feed

    def _check_model(self, session: Any, path: Path) -> None:
        for item in session.get_inputs():
            if item.name not in _INPUTS or item.type != "tensor(int64)":
                allowed = ", ".join(_INPUTS)
                raise UsageError(f"{path}: input {item.name} ({item.type}) is unknown; it may take {allowed}, int64")
        output = session.get_outputs()[0]
        width = output.shape[-1] if output.shape else None
        if output.type != "tensor(float)" or (isinstance(width, int) and width != len(self.labels)):
            raise UsageError(
                f"{path}: output {output.name} is {output.type} {output.shape}; float32 [N, C] with the "
                f"{len(self.labels)} labels of config.json was expected"
            )


def _labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    named = config.get("id2label")
    if not isinstance(named, dict) or len(named) < 2 or set(named) != {str(index) for index in range(len(named))}:
        raise UsageError(f'{folder / "config.json"}: id2label must name every class, from "0" on, two or more')
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise UsageError(f"{folder / 'config.json'}: problem_type {config['problem_type']!r} is not supported")
    return tuple(str(named[str(index)]) for index in range(len(named)))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Row by row, safe for large values."""
    import numpy as np

    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return result
