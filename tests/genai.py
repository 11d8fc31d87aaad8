"""An exported folder in the real onnxruntime-genai, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Genai:
    """A loaded folder."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime_genai

        self._library, self._model = onnxruntime_genai, onnxruntime_genai.Model(str(folder))

    def greedy(self, ids: list[int], new_tokens: int) -> list[int]:
        """The likeliest tokens after these, by the folder's own settings, of which its end token is none."""
        asked = self._library.GeneratorParams(self._model)
        asked.set_search_options(max_length=len(ids) + new_tokens)
        generator = self._library.Generator(self._model, asked)
        generator.append_tokens(np.array([ids], np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        written: list[int] = generator.get_sequence(0).tolist()[len(ids) :]
        return written
