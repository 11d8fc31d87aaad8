"""The hard check that an exported generator computes what torch computes, with the cache and without, alone and in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.errors import ModelError
from pipelines.techniques.cached_decoding import (
    CausalSession,
    Seq2SeqSession,
    causal_feed,
    greedy,
    left_padded,
    right_padded,
    seq2seq_feed,
)


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
        tokens = greedy(causal_feed(session, mask), ids, new_tokens, end, pad)
        require_same_tokens(path, tokens, _generated(model, ids, mask, new_tokens, end, pad), _place(index, "greedy"))
    return worst


def check_seq2seq_parity(
    folder: Path,
    model: Any,
    texts: Sequence[list[int]],
    *,
    new_tokens: int,
    tolerance: float,
    end: int | None,
    pad: int,
) -> float:
    """The same for an encoder and a decoder file in `folder`: texts [token ids] alone and in one right-padded batch.

    Greedy tokens must be generate()'s; logits are compared along those tokens, at once and step by step with the cache.
    """
    session = Seq2SeqSession(folder)
    if session.inputs != (["attention_mask", "input_ids"], ["encoder_attention_mask", "input_ids"]):
        raise ModelError(f"{folder}: the exported graphs take {session.inputs}: padded batches would be wrong")
    worst, start = 0.0, model.generation_config.decoder_start_token_id
    alone = [(index, [row]) for index, row in enumerate(texts)]
    for index, rows in [*alone, (None, list(texts))]:
        ids, mask = right_padded(list(rows), pad)
        first = np.full((len(rows), 1), start, np.int64)
        wanted = _generated(model, ids, mask, new_tokens, end, pad, skip=1)
        tokens = greedy(seq2seq_feed(session, ids, mask), first, new_tokens, end, pad)
        answer = np.concatenate([first, wanted[:, :-1]], axis=1)
        expected = _torch_seq2seq_logits(model, ids, mask, answer)
        counted = np.ones_like(answer)
        for kind, cuts in (("whole", [0, new_tokens]), ("step by step", _cuts(new_tokens))):
            got = _seq2seq_logits(session, ids, mask, answer, cuts)
            worst = max(worst, require_close(folder, got, expected, counted, tolerance, _place(index, kind)))
        require_same_tokens(folder, tokens, wanted, _place(index, "greedy"))
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
    return f"{kind}, padded batch of all prompts" if index is None else f"{kind}, prompt {index}"


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
    cuts = _cuts(width)
    cache, parts = session.empty(len(ids)), []
    for start, stop in pairwise(cuts):
        logits, cache = session.step(ids[:, start:stop], mask[:, :stop], cache)
        parts.append(logits)
    return np.concatenate(parts, axis=1)


def _cuts(width: int) -> list[int]:
    """Where to cut: the first half at once, then a token at a time, but for two together at the end."""
    half = (width + 1) // 2
    return sorted({0, *range(half, max(width - 2, half) + 1), width})


def _torch_seq2seq_logits(model: Any, ids: np.ndarray, mask: np.ndarray, answer: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        found = model(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), decoder_input_ids=torch.tensor(answer)
        )
    logits: np.ndarray = found.logits.float().numpy()
    return logits


def _seq2seq_logits(
    session: Seq2SeqSession, ids: np.ndarray, mask: np.ndarray, answer: np.ndarray, cuts: list[int]
) -> np.ndarray:
    cache, parts = session.encode(ids, mask), []
    for start, stop in pairwise(cuts):
        logits, cache = session.step(answer[:, start:stop], mask, cache)
        parts.append(logits)
    return np.concatenate(parts, axis=1)


def _generated(
    model: Any, ids: np.ndarray, mask: np.ndarray, new_tokens: int, end: int | None, pad: int, skip: int | None = None
) -> np.ndarray:
    """New tokens of transformers' own greedy decoding, what stands after `skip` or the prompt: [B, new_tokens], pad after a row's end."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=end,
        pad_token_id=pad,
        decoder_start_token_id=model.generation_config.decoder_start_token_id,
    )
    with torch.inference_mode():
        answer = model.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), generation_config=config)
    found = np.full((len(ids), new_tokens), pad, np.int64)
    tokens = answer[:, ids.shape[1] if skip is None else skip :].numpy()
    found[:, : tokens.shape[1]] = tokens
    return found
