"""Answering a text with another: an encoder that reads, a decoder that writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from slm_registry.errors import UsageError
from slm_registry.runtime.cachedgraph import CachedGraph, as_value, present, run_values
from slm_registry.runtime.decoding import Asked
from slm_registry.runtime.generating import Generator, generation_settings, special_ids
from slm_registry.runtime.model import Parts
from slm_registry.runtime.parts import encoding, length_limit, load_session, load_tokenizer, read_json
from slm_registry.runtime.text_generation import padded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENCODER_FILE, DECODER_FILE = "encoder_model.onnx", "decoder_model.onnx"
_INPUTS = ("input_ids", "encoder_attention_mask")
_NO_LIMIT = 1 << 30


class TextToText(Generator):
    """An encoder-decoder from config.json, tokenizer.json, encoder_model.onnx and decoder_model.onnx.

    The encoder's present.{i}.encoder.key / .value are the decoder's past_key_values.{i}.encoder.key / .value. Of
    generation_config.json, where it is there, the numbers of the special tokens count and nothing else.
    """

    task = "text2text-generation"

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, threads: int, max_length: int | None, batch_size: int
    ) -> None:
        self.max_length = length_limit(config, read_json(folder / "tokenizer_config.json", missing={}), max_length)
        self.batch_size = batch_size
        settings = generation_settings(folder, config)
        self._ends = frozenset(special_ids(settings, "eos_token_id"))
        self._forced = special_ids(settings, "forced_bos_token_id")[:1]
        begin = [special_ids(settings, name) for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id")]
        self._start = next((ids[0] for ids in begin if ids), 0)
        positions = config.get("max_position_embeddings")
        self._longest_answer = positions - 1 if type(positions) is int else _NO_LIMIT
        tokenizer = load_tokenizer(folder / "tokenizer.json", self.max_length)
        decoder = CachedGraph(load_session(folder / DECODER_FILE, threads), folder / DECODER_FILE, _INPUTS)
        encoder = load_session(folder / ENCODER_FILE, threads)
        missing = {present(name) for name in decoder.fixed} - {item.name for item in encoder.get_outputs()}
        if missing or {item.name for item in encoder.get_inputs()} != {"input_ids", "attention_mask"}:
            raise UsageError(
                f"{folder / ENCODER_FILE}: it must take input_ids and attention_mask, and answer what {DECODER_FILE} takes"
                f"{f' ({min(missing)})' if missing else ''}; export both again"
            )
        self._parts = Parts(tokenizer, _Graphs(encoder, decoder))

    def _prompt(self, tokenizer: Any, place: int, text: str, asked: Asked) -> list[int]:
        found = encoding(tokenizer, text)
        if found.overflowing and not asked.truncate:
            raise UsageError(
                f"text {place} is longer than {self.max_length} tokens; shorten it, or cut it with truncate"
            )
        if not found.ids:
            raise UsageError(f"text {place} has no token; write something")
        return list(found.ids)

    def _room(self, prompt: Sequence[int]) -> int:
        return self._longest_answer

    def _context(self, prompt: Sequence[int]) -> Sequence[int]:
        return ()

    def _steps(self, parts: Parts, prompts: Sequence[Sequence[int]]) -> AnswerSteps:
        return AnswerSteps(parts.session, prompts, self._start, self._forced)


class _Graphs(NamedTuple):
    encoder: Any
    decoder: CachedGraph


class AnswerSteps:
    """Texts side by side, padded on the right and read once; their answers all begin with `start`, then `forced`."""

    def __init__(self, graphs: _Graphs, texts: Sequence[Sequence[int]], start: int, forced: Sequence[int]) -> None:
        self._graph, self._first, self._forced = graphs.decoder, [start] * len(texts), forced
        ids, self._mask = padded(texts, left=False)
        feed = {"input_ids": as_value(ids), "attention_mask": as_value(self._mask)}
        read = run_values(graphs.encoder, [present(name) for name in self._graph.fixed], feed)
        self._cache = dict(zip(self._graph.fixed, read, strict=True)) | self._graph.empty(len(texts))

    def start(self) -> NDArray[np.float32]:
        import numpy as np

        logits = self.next(self._first)
        if self._forced:
            logits = np.full_like(logits, -np.inf)
            logits[:, self._forced] = 0
        return logits

    def next(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        import numpy as np

        feed = {"input_ids": np.array(tokens, np.int64)[:, None], "encoder_attention_mask": self._mask}
        logits, self._cache = self._graph.step(feed, self._cache, last=True)
        return logits[:, 0]

    def keep(self, live: Sequence[int]) -> None:
        self._mask = self._mask[live]
        self._cache = self._graph.rows(self._cache, live)
