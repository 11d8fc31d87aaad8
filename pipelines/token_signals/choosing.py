"""From a teacher's logits to what is stored of them: the k largest, or draws from its distribution."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from pipelines.errors import ModelError
from pipelines.token_signals.rows import SampledRows, TopKRows

#: Logits worked on at a time, so that float64 beside them takes 64 MB whatever the vocabulary.
CHUNK_LOGITS = 1 << 23


def top_k_of(logits: Tensor, k: int) -> TopKRows:
    """The k likeliest tokens of each row of logits [n, V], with log-probabilities under all V.

    Raises ModelError where a row holds NaN or infinity, or nothing but minus infinity.
    """
    ids, log_probs = [], []
    for chunk in _chunks(logits):
        total = torch.logsumexp(chunk, dim=-1, keepdim=True)
        _check(total)
        top = torch.topk(chunk, k, dim=-1)
        ids.append(top.indices.cpu())
        log_probs.append((top.values - total).cpu())
    return TopKRows.of(torch.cat(ids).numpy(), torch.cat(log_probs).clamp(max=0).numpy())


def sample_of(logits: Tensor, draws: int, generator: torch.Generator) -> SampledRows:
    """Independent draws from softmax(logits [n, V]) for each row, as distinct ids in ascending order with their counts.

    The random numbers are drawn on the CPU for all rows at once and inverted through each row's distribution: the result
    depends on generator and logits alone, not on chunks or device. Raises ModelError as `top_k_of`.
    """
    if generator.device.type != "cpu":
        raise ModelError(f"a generator on {generator.device}: draws are the same everywhere only from one on the CPU")
    uniform = torch.rand(len(logits), draws, dtype=torch.float64, generator=generator)
    drawn = []
    for chunk, points in zip(_chunks(logits), uniform.split(_rows_a_chunk(logits)), strict=True):
        cumulative = torch.softmax(chunk, dim=-1).cumsum(-1, dtype=torch.float64)
        _check(cumulative[:, -1:])
        at = torch.searchsorted(cumulative, points.to(chunk.device) * cumulative[:, -1:], right=True)
        drawn.append(at.clamp(max=logits.shape[-1] - 1).cpu())
    return _counted(torch.cat(drawn))


def example_generator(seed: int, example: int) -> torch.Generator:
    """A generator of its own for each example, so that its draws do not depend on what was labelled before or beside it."""
    digest = hashlib.sha256(f"{seed} {example}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _counted(drawn: Tensor) -> SampledRows:
    """Draws [n, draws] -> distinct ids and counts [n, draws], zeros at the end."""
    ordered = drawn.sort(dim=-1).values
    place = torch.zeros_like(ordered)
    place[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(-1)
    counts = torch.zeros_like(ordered).scatter_add_(1, place, torch.ones_like(ordered))
    ids = torch.zeros_like(ordered).scatter_(1, place, ordered)
    return SampledRows(ids.numpy(), counts.numpy())


def _rows_a_chunk(logits: Tensor) -> int:
    return max(1, CHUNK_LOGITS // int(logits.shape[-1]))


def _chunks(logits: Tensor) -> Iterator[Tensor]:
    """Rows in float32, a bounded number at a time."""
    for chunk in logits.detach().split(_rows_a_chunk(logits)):
        yield chunk.float()


def _check(total: Tensor) -> None:
    """A sum over a row that is not finite tells of a logit that is not."""
    if not bool(torch.isfinite(total).all()):
        row = int((~torch.isfinite(total)).flatten().nonzero()[0])
        raise ModelError(f"the teacher's logits of prediction {row} are NaN or infinite; try it in float32")
