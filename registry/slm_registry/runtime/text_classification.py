"""Text classification with numpy, onnxruntime and tokenizers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from slm_registry.runtime.arguments import at_least_one, checked_texts
from slm_registry.runtime.encoders import Encoder, softmax

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Prediction(NamedTuple):
    """The most probable label of a text, and its probability."""

    label: str
    probability: float


class TextClassifier(Encoder):
    """A text classifier from config.json, tokenizer.json, model.onnx and, if there is one, tokenizer_config.json."""

    task = "text-classification"
    shape = "[N, C]"

    def try_out(self) -> None:
        self.predict(["a text to see that it answers"])

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
            result[batch] = softmax(self._logits(session, [encoded[index] for index in batch]))
        return result

    def pieces(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text becomes, those around it included; at most `max_length`. Raises as `predict_proba` does."""
        tokenizer, _ = self._opened()
        return [len(encoding.ids) for encoding in self._encode(tokenizer, checked_texts(texts))]
