"""The hard check that an exported generator computes what torch computes, with the cache and without, alone and in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.errors import ModelError
from pipelines.techniques.cached_decoding import CausalSession, greedy, left_padded


def check_causal_parity(
    path: Path,
    model: Any,
    prompts: Sequence[list[int]],
    *,
    new_tokens: int,
    tolerance: float,
    end: int | None,
    pad: int,
) -> float:
    """Largest |exported - torch| logit over each prompt whole, token by token with the cache, and all in one left-padded batch.

    Greedy tokens must be those of transformers' generate(), each prompt alone and all in one batch. Raises ModelError, naming
    prompt and step, where they are not, where a logit differs by more than the tolerance, or an input left the graph.
    """
    session = CausalSession(path)
    if session.inputs != ["attention_mask", "input_ids", "position_ids"]:
        raise ModelError(
            f"{path}: the exported graph takes {session.inputs} beside its cache: padded batches would be wrong"
        )
    worst = 0.0
    alone = [(index, [row]) for index, row in enumerate(prompts)]
    for index, rows in [*alone, (None, list(prompts))]:
        ids, mask = left_padded(list(rows), pad)
        expected = _torch_logits(model, ids, mask)
        for kind, got in (("whole", _whole(session, ids, mask)), ("step by step", _stepwise(session, ids, mask))):
            worst = max(worst, require_close(path, got, expected, mask, tolerance, _place(index, kind)))
        tokens = greedy(session, ids, mask, new_tokens, end, pad)
        require_same_tokens(path, tokens, _generated(model, ids, mask, new_tokens, end, pad), _place(index, "greedy"))
    return worst


def require_close(
    path: Path, got: np.ndarray, expected: np.ndarray, mask: np.ndarray, tolerance: float, place: str
) -> float:
    """Largest difference of logits [B, T, V] where mask [B, T] is 1; ModelError beyond the tolerance, NaN included."""
    difference = np.where(mask.astype(bool), np.abs(got - expected).max(axis=-1), 0.0)
    if not difference.max() <= tolerance:
        row, step = np.unravel_index(int(np.argmax(np.nan_to_num(difference, nan=np.inf))), difference.shape)
        raise ModelError(
            f"{path}: exported logits differ from torch by {difference[row, step]:.2e} ({place}, row {row}, position {step}), "
            f"quantize.parity allows {tolerance:.0e}; do not publish this file"
        )
    return float(difference.max())


def require_same_tokens(path: Path, got: np.ndarray, expected: np.ndarray, place: str) -> None:
    """ModelError, naming row and step, unless the tokens [B, N] are equal."""
    if (got != expected).any():
        row, step = np.argwhere(got != expected)[0]
        raise ModelError(
            f"{path}: greedy decoding leaves transformers' generate() ({place}, row {row}, new token {step}: "
            f"{got[row, step]} instead of {expected[row, step]}); do not publish this file"
        )


def _place(index: int | None, kind: str) -> str:
    return f"{kind}, left-padded batch of all prompts" if index is None else f"{kind}, prompt {index}"


def _torch_logits(model: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    with torch.inference_mode():
        answer = model(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), position_ids=torch.tensor(positions)
        )
    logits: np.ndarray = answer.logits.float().numpy()
    return logits


def _whole(session: CausalSession, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return session.step(ids, mask, session.empty(len(ids)))[0]


def _stepwise(session: CausalSession, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The first half at once, then a token at a time, but for two together at the end: lengths 1 and more, with a past."""
    width = ids.shape[1]
    cuts = sorted({0, (width + 1) // 2, *range((width + 1) // 2, max(width - 2, 0) + 1), width})
    cache, parts = session.empty(len(ids)), []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        logits, cache = session.step(ids[:, start:stop], mask[:, :stop], cache)
        parts.append(logits)
    return np.concatenate(parts, axis=1)


def _generated(model: Any, ids: np.ndarray, mask: np.ndarray, new_tokens: int, end: int | None, pad: int) -> np.ndarray:
    """New tokens of transformers' own greedy decoding: [B, new_tokens], pad after a row's end."""
    from transformers import GenerationConfig

    config = GenerationConfig(do_sample=False, max_new_tokens=new_tokens, eos_token_id=end, pad_token_id=pad)
    with torch.inference_mode():
        answer = model.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), generation_config=config)
    found = np.full((len(ids), new_tokens), pad, np.int64)
    tokens = answer[:, ids.shape[1] :].numpy()
    found[:, : tokens.shape[1]] = tokens
    return found
