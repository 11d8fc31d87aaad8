"""What was predicted, as JSON lines: what a monitor of drift needs, and no text unless it is asked for."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path

from slm_registry.finding.records import Resolved
from slm_registry.plumbing.files import os_errors
from slm_registry.runtime.text_classification import Prediction


class PredictionLog:
    """Appends to a file that may be moved away at any time: it is opened for each write, and one write is one call.

    A line has `time` (UTC), `model`, `version`, `digest`, `length` (of the text, in characters), `words`
    (between spaces), `pieces` (tokens), `label`, `probability` and, with `texts`, `text`. The file is readable by its
    owner alone.
    """

    def __init__(self, path: Path, *, texts: bool = False) -> None:
        self.path, self._texts = path, texts
        # Better now than at the first prediction.
        self._append(b"")

    def write(
        self, resolved: Resolved, texts: Sequence[str], pieces: Sequence[int], predictions: Sequence[Prediction]
    ) -> None:
        """One line a text. Raises StoreError where the file cannot be written."""
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        lines = []
        for text, count, prediction in zip(texts, pieces, predictions, strict=True):
            line = {
                "time": at,
                "model": resolved.model,
                "version": resolved.version,
                "digest": resolved.digest,
                "length": len(text),
                "words": len(text.split()),
                "pieces": count,
                "label": prediction.label,
                "probability": round(prediction.probability, 6),
            }
            lines.append(json.dumps({**line, "text": text} if self._texts else line) + "\n")
        self._append("".join(lines).encode())

    def _append(self, data: bytes) -> None:
        with os_errors("write", self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            finally:
                os.close(descriptor)
