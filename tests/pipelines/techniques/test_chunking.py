"""The chunked loss against the plain one: value, gradients, and what it holds in memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.techniques import divergences, losses
from pipelines.techniques.chunking import Where, chunked
from pipelines.techniques.divergences import Dense


class Tiny(nn.Module):
    """Tokens -> features -> logits; tied, the head is the embedding."""

    def __init__(self, vocabulary: int, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 8)
        self.body = nn.Linear(8, 8)
        self.out = nn.Linear(8, vocabulary, bias=not tied)
        if tied:
            self.out.weight = self.embedding.weight

    def features(self, ids: Tensor) -> Tensor:
        return torch.tanh(self.body(self.embedding(ids)))

    def head(self, rows: Tensor) -> Tensor:
        return 30 * torch.tanh(self.out(rows) / 30)  # soft-capped, as gemma2's


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys() != set()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=tolerance, rtol=tolerance), name


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 13),
    chunk_rows=st.integers(1, 16),
    tied=st.booleans(),
    masked=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_value_and_gradients_are_the_plain_ones(
    seed: int, rows: int, chunk_rows: int, tied: bool, masked: bool
) -> None:
    torch.manual_seed(seed)
    model, teacher = Tiny(11, tied), Dense(torch.randn(rows, 11) * 3)
    ids, labels = torch.randint(11, (rows,)), torch.randint(-1, 11, (rows,))
    mask = labels != losses.NO_LABEL if masked else None

    def rows_loss(logits: Tensor, where: Where) -> Tensor:
        stored = divergences.by_row("kl", logits, teacher.part(where), 2.0)
        return (stored + 0.3 * losses.cross_entropy_by_row(logits, labels[where])).sum()

    features = model.features(ids)
    found = chunked(features, model.head, rows_loss, chunk_rows, mask)
    where = torch.arange(rows) if mask is None else mask.nonzero().squeeze(-1)
    expected = rows_loss(model.head(model.features(ids)[where]), where)
    assert float(found) == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    with torch.no_grad():
        assert float(chunked(features, model.head, rows_loss, chunk_rows, mask)) == pytest.approx(
            float(found), rel=1e-6
        )
    if len(where):
        # the caller divides by the rows that count: what flows back is not one
        assert_same(gradients(model, found / len(where)), gradients(model, expected / len(where)), 1e-5)


def test_rows_without_a_target_count_nowhere_even_as_nan() -> None:
    torch.manual_seed(1)
    head, labels = nn.Linear(4, 7), torch.tensor([2, losses.NO_LABEL, 5, losses.NO_LABEL])
    clean = torch.randn(4, 4)
    spoiled = clean.clone()
    spoiled[labels == losses.NO_LABEL] = math.nan
    spoiled.requires_grad_()
    found = chunked(
        spoiled,
        head,
        lambda logits, where: F.cross_entropy(logits, labels[where], reduction="sum"),
        1,
        labels != losses.NO_LABEL,
    )
    assert float(found) == pytest.approx(float(F.cross_entropy(head(clean[::2]), labels[::2], reduction="sum")))
    found.backward()
    assert spoiled.grad is not None
    assert spoiled.grad[1::2].tolist() == [[0.0] * 4] * 2
    assert bool(spoiled.grad.isfinite().all())
    assert head.weight.grad is not None
    assert bool(head.weight.grad.isfinite().all())


def test_no_row_at_all_is_a_zero_with_gradients_of_zero() -> None:
    head, features = nn.Linear(4, 7), torch.randn(3, 4, requires_grad=True)
    nothing = torch.zeros(3, dtype=torch.bool)
    total = chunked(features, head, lambda logits, where: logits.sum(), 2, nothing)
    total.backward()
    assert float(total) == 0
    assert features.grad is not None
    assert float(features.grad.abs().sum()) == 0


def test_parameters_of_the_loss_and_frozen_heads() -> None:
    torch.manual_seed(2)
    head, scale = nn.Linear(4, 7).requires_grad_(False), nn.Parameter(torch.tensor(1.5))
    features = torch.randn(5, 4, requires_grad=True)
    labels = torch.randint(7, (5,))

    def rows_loss(logits: Tensor, where: Where) -> Tensor:
        return F.cross_entropy(logits * scale, labels[where], reduction="sum")

    found = torch.autograd.grad(chunked(features, head, rows_loss, 2), [features, scale])
    expected = torch.autograd.grad(rows_loss(head(features), slice(None)), [features, scale])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert head.weight.grad is None


def test_float64_stays_and_gradients_hold_by_differences() -> None:
    torch.manual_seed(3)
    weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    features = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teacher = Dense(torch.randn(5, 6, dtype=torch.float64))

    def loss(rows: Tensor, matrix: Tensor) -> Tensor:
        return chunked(
            rows,
            lambda part: part @ matrix.T,
            lambda logits, where: divergences.by_row("jsd", logits, teacher.part(where), 1.0, 0.5).sum(),
            2,
        )

    assert torch.autograd.gradcheck(loss, (features, weight))


def test_a_second_backward_pass_is_refused_not_wrong() -> None:
    head, features = nn.Linear(4, 7), torch.randn(3, 4, requires_grad=True)
    total = chunked(features, head, lambda logits, where: logits.square().sum(), 2)
    total.backward()
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()


def test_weights_computed_inside_the_head_learn_and_outside_are_refused() -> None:
    torch.manual_seed(5)
    base, low, high = torch.randn(7, 4), torch.randn(7, 2, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    features = torch.randn(5, 4, requires_grad=True)

    def rows_loss(logits: Tensor, where: Where) -> Tensor:
        return logits.square().sum()

    inside = chunked(features, lambda rows: rows @ (base + low @ high).T, rows_loss, 2)
    plain = rows_loss(features @ (base + low @ high).T, slice(None))
    for ours, theirs in zip(*(torch.autograd.grad(loss, [low, high]) for loss in (inside, plain)), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5)
    outside = base + low @ high
    with pytest.raises(RuntimeError, match="second time"):
        chunked(features, lambda rows: rows @ outside.T, rows_loss, 2)


def test_autocast_runs_the_head_in_bfloat16_and_the_loss_in_float32() -> None:
    torch.manual_seed(4)
    model, seen = Tiny(64, tied=True), []
    ids, labels = torch.randint(64, (50,)), torch.randint(64, (50,))

    def head(rows: Tensor) -> Tensor:
        logits = model.out(rows)
        seen.append(logits.dtype)
        return logits

    def rows_loss(logits: Tensor, where: Where) -> Tensor:
        seen.append(logits.dtype)
        return F.cross_entropy(logits, labels[where], reduction="sum")

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = chunked(model.features(ids), head, rows_loss, 7)
    assert set(seen) == {torch.bfloat16, torch.float32}
    assert set(seen[::2]) == {torch.bfloat16}
    ours = gradients(model, found)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = F.cross_entropy(model.out(model.features(ids)).float(), labels, reduction="sum")
    theirs = gradients(model, plain)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(plain), rel=1e-5)
    assert ours["embedding.weight"].dtype == torch.float32
    for name in (
        theirs
    ):  # bfloat16 has 8 bits, and the plain way rounds one long sum where this one adds seven-row sums in float32
        assert float((ours[name] - theirs[name]).norm() / theirs[name].norm()) < 0.01, name


class Largest(TorchDispatchMode):
    """The largest tensor that any operation answers, forward or backward."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        for value in answer if isinstance(answer, tuple | list) else [answer]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return answer


def test_no_tensor_is_larger_than_a_chunk() -> None:
    rows, width, vocabulary, chunk_rows = 60, 4, 500, 6
    head, features = nn.Linear(width, vocabulary), torch.randn(rows, width, requires_grad=True)
    labels = torch.randint(vocabulary, (rows,))

    def rows_loss(logits: Tensor, where: Where) -> Tensor:
        return F.cross_entropy(logits, labels[where], reduction="sum")

    with Largest() as ours:
        chunked(features, head, rows_loss, chunk_rows).backward()
    with Largest() as plain:
        rows_loss(head(features), slice(None)).backward()
    assert ours.elements == chunk_rows * vocabulary
    assert plain.elements == rows * vocabulary


PEAK = """
import json, re, torch
from pathlib import Path
import torch.nn.functional as F
from torch import nn
from pipelines.techniques.chunking import chunked
def peak():  # ru_maxrss would begin with the parent's: Linux carries it over exec
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
torch.manual_seed(0)
rows, vocabulary = 2048, 16384
head, features = nn.Linear(8, vocabulary), torch.randn(rows, 8, requires_grad=True)
labels = torch.randint(vocabulary, (rows,))
loss = lambda logits, where: F.cross_entropy(logits, labels[where], reduction="sum")
loss(head(features[:64]), slice(0, 64)).backward()  # what a first call loads
before = peak()
chunked(features, head, loss, 64).backward()
chunk = peak()
loss(head(features), slice(None)).backward()
plain = peak()
print(json.dumps({"chunked": chunk - before, "plain": plain - before, "logits": rows * vocabulary * 4}))
"""


def test_peak_memory_of_a_process() -> None:
    """All chunks' graphs together would be the plain way's memory again."""
    ran = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=120)
    peak = json.loads(ran.stdout)
    assert peak["plain"] > peak["logits"]
    assert peak["chunked"] < peak["plain"] / 4
