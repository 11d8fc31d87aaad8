"""Writing on from a prompt with numpy, onnxruntime and tokenizers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from slm_registry.errors import UsageError
from slm_registry.runtime.arguments import at_least_one, checked_texts
from slm_registry.runtime.cachedgraph import CachedGraph
from slm_registry.runtime.decoding import Asked
from slm_registry.runtime.generating import Generator, generation_settings, special_ids
from slm_registry.runtime.model import Parts
from slm_registry.runtime.parts import encoded, length_limit, load_session, load_tokenizer, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INPUTS = ("input_ids", "attention_mask", "position_ids")
#: Logits of one step of scoring, at most: 64 MB.
_SCORED_AT_ONCE = 16 << 20
_LARGE_VOCABULARY = 256_000


class Score(NamedTuple):
    """Log-probability of a text in nats, and how many tokens it is the sum over."""

    log_probability: float
    tokens: int


class TextGenerator(Generator):
    """A causal language model from config.json, tokenizer.json and model.onnx with its cache inside the graph.

    Of generation_config.json, where it is there, the numbers of the special tokens count and nothing else.
    """

    task = "text-generation"

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, threads: int, max_length: int | None, batch_size: int
    ) -> None:
        self.max_length = length_limit(config, read_json(folder / "tokenizer_config.json", missing={}), max_length)
        self.batch_size = batch_size
        settings = generation_settings(folder, config)
        self._ends = frozenset(special_ids(settings, "eos_token_id"))
        self._begin = special_ids(settings, "bos_token_id")[:1]
        tokenizer = load_tokenizer(folder / "tokenizer.json", None)
        session = load_session(folder / "model.onnx", threads)
        self._parts = Parts(tokenizer, CachedGraph(session, folder / "model.onnx", _INPUTS))

    def score(self, texts: Sequence[str], batch_size: int | None = None) -> list[Score]:
        """How probable each text is: the sum over its tokens of log p(token | those before it).

        The first token counts where the model names a token that texts begin with (bos_token_id). A text longer than the
        context is read in parts, each from the last token of the one before.
        """
        import numpy as np

        parts = self._opened()
        batch_size = at_least_one("batch_size", self.batch_size if batch_size is None else batch_size)
        sums, counts, pieces = [], [], []
        for place, text in enumerate(checked_texts(texts)):
            ids = encoded(parts.tokenizer, text)
            ids = ids if ids[:1] == self._begin else [*self._begin, *ids]
            room = self.max_length - 1
            pieces += [(place, ids[start : start + room + 1]) for start in range(0, len(ids) - 1, room)]
            counts.append(max(0, len(ids) - 1))
            sums.append(0.0)
        pieces.sort(key=lambda piece: len(piece[1]))
        for start in range(0, len(pieces), batch_size):
            batch = pieces[start : start + batch_size]
            for (place, _), total in zip(
                batch, _log_probabilities(parts.session, [ids for _, ids in batch]), strict=True
            ):
                sums[place] += float(total)
        return [Score(float(np.float64(total)), count) for total, count in zip(sums, counts, strict=True)]

    def _prompt(self, tokenizer: Any, place: int, text: str, asked: Asked) -> list[int]:
        ids = encoded(tokenizer, text) or list(self._begin)
        if not ids:
            raise UsageError(f"prompt {place} has no token, and the model names none to begin with; write something")
        if len(ids) < self.max_length:
            return ids
        if not asked.truncate:
            raise UsageError(
                f"prompt {place} has {len(ids)} tokens; the context of {self.max_length} leaves room for at most "
                f"{self.max_length - 1} and an answer: shorten it, or cut it from the left with truncate"
            )
        begin = ids[:1] if ids[:1] == self._begin else []
        kept = max(1, self.max_length - asked.max_new_tokens - len(begin))
        return [*begin, *ids[-kept:]]

    def _room(self, prompt: Sequence[int]) -> int:
        return self.max_length - len(prompt)

    def _context(self, prompt: Sequence[int]) -> Sequence[int]:
        return prompt

    def _steps(self, parts: Parts, prompts: Sequence[Sequence[int]]) -> CausalSteps:
        return CausalSteps(parts.session, prompts)


class CausalSteps:
    """Prompts side by side, padded on the left; the padding that all rows share goes when a row goes."""

    def __init__(self, graph: CachedGraph, prompts: Sequence[Sequence[int]]) -> None:
        self._graph = graph
        self._ids, self._mask = padded(prompts, left=True)
        self._cache = graph.empty(len(prompts))

    def start(self) -> NDArray[np.float32]:
        return self._step(self._ids)

    def next(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        import numpy as np

        ids = np.array(tokens, np.int64)[:, None]
        self._mask = np.concatenate([self._mask, np.ones_like(ids)], axis=1)
        return self._step(ids)

    def keep(self, live: Sequence[int]) -> None:
        mask = self._mask[live]
        cut = int(mask.argmax(axis=1).min())
        self._mask = mask[:, cut:]
        self._cache = self._graph.rows(self._cache, live, cut)

    def _step(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        logits, self._cache = self._graph.step(causal_feed(ids, self._mask), self._cache, last=True)
        return logits[:, 0]


def causal_feed(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """What a graph takes for ids [B, T] that end the tokens which mask [B, P + T] marks."""
    positions = (mask.cumsum(axis=1) - 1).clip(min=0)[:, -ids.shape[1] :]
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def padded(rows: Sequence[Sequence[int]], *, left: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and mask [B, T] of rows of unlike length. What stands where the mask is 0 does not matter."""
    import numpy as np

    width = max(map(len, rows))
    ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        span = slice(width - len(row), width) if left else slice(0, len(row))
        ids[place, span], mask[place, span] = row, 1
    return ids, mask


def _log_probabilities(graph: CachedGraph, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Sum over each row of log p(token | those before it) but for its first token; memory is bounded, not [B, T, V]."""
    import numpy as np

    ids, mask = padded(rows, left=False)
    total = np.zeros(len(rows))
    cache = graph.empty(len(rows))
    length = max(1, _SCORED_AT_ONCE // (len(rows) * (graph.vocabulary or _LARGE_VOCABULARY)))
    for start in range(0, ids.shape[1] - 1, length):
        end = min(start + length, ids.shape[1] - 1)
        logits, cache = graph.step(causal_feed(ids[:, start:end], mask[:, :end]), cache, last=False)
        largest = logits.max(axis=-1)
        said = np.take_along_axis(logits, ids[:, start + 1 : end + 1, None], axis=-1)[..., 0] - largest
        scale = np.log(np.exp(logits - largest[..., None]).sum(axis=-1, dtype=np.float64))
        total += np.where(mask[:, start + 1 : end + 1] == 1, said - scale, 0.0).sum(axis=1)
    return total
