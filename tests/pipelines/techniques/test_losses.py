"""Every loss against a second, slow implementation written from its formula, one number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipelines.techniques import losses


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [value / sum(powers) for value in powers]


def slow_kl(p_rows: Tensor, q_rows: Tensor, temperature: float) -> float:
    total = 0.0
    for p_row, q_row in zip(p_rows.tolist(), q_rows.tolist(), strict=True):
        p, q = softmax([v / temperature for v in p_row]), softmax([v / temperature for v in q_row])
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(p_rows) * temperature**2


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 8))
@settings(max_examples=25, deadline=None)
def test_kl_both_ways(seed: int, temperature: float) -> None:
    torch.manual_seed(seed)
    student, teacher = torch.randn(5, 4) * 3, torch.randn(5, 4) * 3
    assert float(losses.kl(student, teacher, temperature)) == pytest.approx(
        slow_kl(teacher, student, temperature), rel=1e-4, abs=1e-5
    )
    assert float(losses.reverse_kl(student, teacher, temperature)) == pytest.approx(
        slow_kl(student, teacher, temperature), rel=1e-4, abs=1e-5
    )


def test_kl_is_zero_only_for_equal_sides() -> None:
    logits = torch.randn(3, 5)
    assert float(losses.kl(logits, logits + 7, 2)) == pytest.approx(0, abs=1e-6)  # a shift changes no probability
    assert float(losses.kl(logits, -logits, 2)) > 0.01


def test_cross_entropy_skips_texts_without_label() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    expected = -(math.log(softmax([2.0, 0.0])[0]) + math.log(softmax([0.0, 1.0])[1])) / 2
    labels = torch.tensor([0, 1, losses.NO_LABEL])
    assert float(losses.cross_entropy(logits, labels)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.cross_entropy(logits, torch.full((3,), losses.NO_LABEL))) == 0.0


def test_hidden_losses_count_real_tokens_alone() -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    pairs = [(student[b, t].tolist(), teacher[b, t].tolist()) for b in range(2) for t in range(3) if mask[b, t]]
    squares = [(a - b) ** 2 for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)]
    assert float(losses.hidden_mse(student, teacher, mask)) == pytest.approx(sum(squares) / len(squares), rel=1e-5)

    def cosine(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    expected = sum(1 - cosine(*pair) for pair in pairs) / len(pairs)
    assert float(losses.hidden_cosine(student, teacher, mask)) == pytest.approx(expected, rel=1e-4)
    spoiled = student.clone()
    spoiled[~mask] = 1e6
    assert float(losses.hidden_mse(spoiled, teacher, mask)) == float(losses.hidden_mse(student, teacher, mask))


def slow_relation(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> float:
    def matrix(states: Tensor, b: int, head: int) -> list[list[float]]:
        size = states.shape[-1] // heads
        real = [t for t in range(states.shape[1]) if mask[b, t]]
        vectors = {t: states[b, t, head * size : (head + 1) * size].tolist() for t in real}
        return [
            softmax([sum(x * y for x, y in zip(vectors[i], vectors[j], strict=True)) / math.sqrt(size) for j in real])
            for i in real
        ]

    terms = []
    for b in range(len(mask)):
        ours = [matrix(student, b, head) for head in range(heads)]
        theirs = [matrix(teacher, b, head) for head in range(heads)]
        for row in range(int(mask[b].sum())):
            per_head = [
                sum(p * math.log(p / q) for p, q in zip(theirs[head][row], ours[head][row], strict=True))
                for head in range(heads)
            ]
            terms.append(sum(per_head) / heads)
    return sum(terms) / len(terms)


def test_relation_with_different_widths() -> None:
    torch.manual_seed(2)
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    student = [torch.randn(2, 4, 6) for _ in range(3)]
    teacher = [torch.randn(2, 4, 8) for _ in range(3)]
    expected = sum(slow_relation(s, t, mask, heads=2) for s, t in zip(student, teacher, strict=True)) / 3
    assert float(losses.relation(student, teacher, mask, heads=2)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["kl", "reverse_kl"])
def test_gradients_reach_the_student(name: str) -> None:
    student = torch.randn(4, 3, requires_grad=True)
    getattr(losses, name)(student, torch.randn(4, 3), 2.0).backward()
    assert student.grad is not None
    assert float(student.grad.abs().sum()) > 0
