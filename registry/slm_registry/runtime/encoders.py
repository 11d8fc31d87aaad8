"""What models that read a text once and label it have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slm_registry.errors import CorruptError, UsageError
from slm_registry.runtime.model import Model, Parts
from slm_registry.runtime.parts import length_limit, load_session, load_tokenizer, pad_id, read_json, tokenizing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Encoder(Model):
    """A labelling model from config.json, tokenizer.json, model.onnx and, if there is one, tokenizer_config.json."""

    # The shape of its logits, in words.
    shape: ClassVar[str]

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

    def _logits(self, session: Any, encodings: Sequence[Any]) -> NDArray[np.float32]:
        """Raw scores, a row an encoding. Raises CorruptError where the model cannot take what the tokenizer gives."""
        feed = self._feed(encodings)
        try:
            logits: NDArray[np.float32] = session.run(None, feed)[0]
        except Exception as error:
            raise CorruptError(
                f"the model cannot run what its tokenizer gives it: {error}; export both again"
            ) from error
        places = next(iter(feed.values())).shape[: self.shape.count(",")]
        if logits.shape != (*places, len(self.labels)):
            raise CorruptError(
                f"the model answers {logits.shape} to {len(encodings)} texts and {len(self.labels)} labels"
            )
        return logits

    def _encode(self, tokenizer: Any, texts: Sequence[Any]) -> list[Any]:
        """Encodings of texts, or of lists of words."""
        words = any(not isinstance(text, str) for text in texts)
        with tokenizing("the tokenizer cannot encode these texts"):
            if self._threads > 1:
                return list(tokenizer.encode_batch(texts, is_pretokenized=words))
            # encode_batch would start threads of its own, one for each core.
            return [tokenizer.encode(text, is_pretokenized=words) for text in texts]

    def _feed(self, encodings: Sequence[Any]) -> dict[str, NDArray[np.int64]]:
        """The model's inputs [batch, longest], int64, padded."""
        import numpy as np

        longest = max([1, *(len(encoding.ids) for encoding in encodings)])
        feed = {name: np.zeros((len(encodings), longest), dtype=np.int64) for name in self._inputs}
        if "input_ids" in feed:
            feed["input_ids"][:] = self._pad_id
        for row, encoding in enumerate(encodings):
            span = self._span(len(encoding.ids), longest)
            values = {"input_ids": encoding.ids, "attention_mask": 1, "token_type_ids": encoding.type_ids}
            for name, array in feed.items():
                array[row, span] = values[name]
        return feed

    def _span(self, length: int, longest: int) -> slice:
        """Where a text's tokens stand in its batch."""
        return slice(longest - length, longest) if self._pad_left else slice(0, length)

    def _check_model(self, session: Any, path: Path) -> None:
        for item in session.get_inputs():
            if item.name not in _INPUTS or item.type != "tensor(int64)":
                allowed = ", ".join(_INPUTS)
                raise UsageError(f"{path}: input {item.name} ({item.type}) is unknown; it may take {allowed}, int64")
        output = session.get_outputs()[0]
        width = output.shape[-1] if output.shape else None
        if output.type != "tensor(float)" or (isinstance(width, int) and width != len(self.labels)):
            raise UsageError(
                f"{path}: output {output.name} is {output.type} {output.shape}; float32 {self.shape} with the "
                f"{len(self.labels)} labels of config.json was expected"
            )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities over the last axis, safe for large values."""
    import numpy as np

    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def _labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    named = config.get("id2label")
    if not isinstance(named, dict) or len(named) < 2 or set(named) != {str(index) for index in range(len(named))}:
        raise UsageError(f'{folder / "config.json"}: id2label must name every class, from "0" on, two or more')
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise UsageError(f"{folder / 'config.json'}: problem_type {config['problem_type']!r} is not supported")
    return tuple(str(named[str(index)]) for index in range(len(named)))
