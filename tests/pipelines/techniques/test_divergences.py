"""Every divergence, over every kind of teacher's rows, against a second implementation: plain loops in Python's float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipelines.errors import ModelError, RecipeError
from pipelines.techniques import divergences
from pipelines.techniques.divergences import Dense, Loss, Rest, Sampled, TopK, by_row, unsupported

MIXED: tuple[Loss, ...] = ("jsd", "skew_kl", "skew_reverse_kl")
LOSSES: tuple[Loss, ...] = ("kl", "reverse_kl", *MIXED)
Row = list[float]


def softmax(scores: Row, temperature: float) -> Row:
    top = max(scores)
    powers = [math.exp((score - top) / temperature) for score in scores]
    return [power / sum(powers) for power in powers]


def relative_entropy(a: Row, b: Row) -> float:
    total = 0.0
    for x, y in zip(a, b, strict=True):
        if x > 0:
            total += x * math.log(x / y) if y > 0 else math.inf
    return total


def mixture(a: Row, b: Row, weight: float) -> Row:
    return [weight * x + (1 - weight) * y for x, y in zip(a, b, strict=True)]


def slow(loss: Loss, p: Row, q: Row, mix: float) -> float:
    match loss:
        case "kl":
            return relative_entropy(p, q)
        case "reverse_kl":
            return relative_entropy(q, p)
        case "skew_kl":
            return relative_entropy(p, mixture(p, q, mix))
        case "skew_reverse_kl":
            return relative_entropy(q, [(1 - mix) * x + mix * y for x, y in zip(p, q, strict=True)])
        case "jsd":
            middle = mixture(p, q, mix)
            return mix * relative_entropy(p, middle) + (1 - mix) * relative_entropy(q, middle)


def slow_dense(loss: Loss, student: Tensor, teacher: Tensor, temperature: float, mix: float) -> Row:
    return [
        slow(loss, softmax(t, temperature), softmax(s, temperature), mix) * temperature**2
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]


def slow_topk(
    loss: Loss, student: Tensor, ids: Tensor, log_probs: Tensor, rest: Rest, temperature: float, mix: float
) -> Row:
    """Both sides as probabilities of K classes and a tail, then softened as such."""
    found = []
    for scores, kept, logs in zip(student.tolist(), ids.tolist(), log_probs.tolist(), strict=True):
        q, p = softmax(scores, 1), [math.exp(value) for value in logs]
        ours, theirs = [q[index] for index in kept], list(p)
        if rest == "tail" and len(kept) < len(q):
            ours.append(sum(value for index, value in enumerate(q) if index not in kept))
            theirs.append(max(1 - sum(p), torch.finfo(torch.float64).eps))
        ours, theirs = ([x ** (1 / temperature) for x in side] for side in (ours, theirs))
        ours, theirs = ([x / sum(side) for x in side] for side in (ours, theirs))
        found.append(slow(loss, theirs, ours, mix) * temperature**2)
    return found


def topk_of(log_probs: Tensor, k: int, rest: Rest) -> TopK:
    values, ids = log_probs.topk(k)
    return TopK(ids, values, rest)


def sides(seed: int, rows: int, classes: int, spread: float = 3) -> tuple[Tensor, Tensor]:
    """Logits of a student, log-probabilities of a teacher, float64."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, rows, classes, generator=generator, dtype=torch.float64) * spread
    return student, teacher.log_softmax(-1)


def options(loss: Loss, mix: float) -> float | None:
    return mix if loss in MIXED else None


shapes = {"seed": st.integers(0, 10_000), "rows": st.integers(1, 4), "classes": st.integers(2, 9)}
softness, mixes = st.floats(0.3, 8), st.floats(0.02, 0.98)


@given(**shapes, temperature=softness, mix=mixes, zeros=st.booleans())
@settings(max_examples=60, deadline=None)
def test_dense(seed: int, rows: int, classes: int, temperature: float, mix: float, zeros: bool) -> None:
    student, teacher = sides(seed, rows, classes)
    if zeros:
        teacher[:, 0] = -math.inf
    for loss in LOSSES:
        expected = slow_dense(loss, student, teacher, temperature, mix)
        for cast, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            found = by_row(loss, student.to(cast), Dense(teacher.to(cast)), temperature, options(loss, mix))
            assert found.tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance), loss


@given(**shapes, data=st.data(), temperature=softness, mix=mixes, rest=st.sampled_from(["tail", "renormalise"]))
@settings(max_examples=80, deadline=None)
def test_topk(
    seed: int, rows: int, classes: int, data: st.DataObject, temperature: float, mix: float, rest: Rest
) -> None:
    student, teacher = sides(seed, rows, classes)
    stored = topk_of(teacher, data.draw(st.integers(1, classes)), rest)
    for loss in LOSSES:
        expected = slow_topk(loss, student, stored.ids, stored.log_probs, rest, temperature, mix)
        found = by_row(loss, student, stored, temperature, options(loss, mix))
        assert found.tolist() == pytest.approx(expected, rel=1e-7, abs=1e-9), loss


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rest", ["tail", "renormalise"])
def test_all_classes_kept_is_the_dense_divergence(loss: Loss, rest: Rest) -> None:
    student, teacher = sides(3, 4, 7)
    stored = topk_of(teacher, 7, rest)
    assert torch.allclose(
        by_row(loss, student, stored, 2.0, options(loss, 0.3)),
        by_row(loss, student, Dense(teacher), 2.0, options(loss, 0.3)),
    )


@given(**shapes, data=st.data(), mix=mixes)
@settings(max_examples=60, deadline=None)
def test_a_tail_never_exceeds_the_dense_divergence(
    seed: int, rows: int, classes: int, data: st.DataObject, mix: float
) -> None:
    student, teacher = sides(seed, rows, classes)
    stored = topk_of(teacher, data.draw(st.integers(1, classes)), "tail")
    for loss in LOSSES:
        coarse = by_row(loss, student, stored, 1.0, options(loss, mix))
        dense = by_row(loss, student, Dense(teacher), 1.0, options(loss, mix))
        assert bool((coarse >= -1e-9).all())
        assert bool((coarse <= dense + 1e-9).all()), loss


def test_a_tail_sees_the_mass_that_renormalising_hides() -> None:
    teacher = torch.tensor([[0.6, 0.3, 0.1, 0.0]]).log()
    student = torch.tensor([[0.06, 0.03, 0.01, 0.9]]).log()  # the teacher's ratios, most mass elsewhere
    assert float(divergences.kl(student, topk_of(teacher, 2, "renormalise"), 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(divergences.kl(student, topk_of(teacher, 2, "tail"), 1.0)) > 1


def test_equal_sides_are_at_zero_with_a_gradient_of_zero() -> None:
    _, teacher = sides(5, 3, 8)
    for loss in LOSSES:
        for stored in (Dense(teacher), topk_of(teacher, 3, "tail"), topk_of(teacher, 3, "renormalise")):
            student = (teacher + 4).requires_grad_()  # a shift changes no probability
            found = by_row(loss, student, stored, 2.0, options(loss, 0.4))
            (gradient,) = torch.autograd.grad(found.sum(), student)
            assert float(found.detach().abs().max()) < 1e-9
            assert float(gradient.abs().max()) < 1e-9


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_by_differences(loss: Loss) -> None:
    student, teacher = sides(6, 3, 6)
    for stored in (Dense(teacher), topk_of(teacher, 2, "tail"), topk_of(teacher, 2, "renormalise")):
        assert torch.autograd.gradcheck(
            lambda logits, stored=stored: by_row(loss, logits, stored, 1.7, options(loss, 0.3)),
            student.clone().requires_grad_(),
        )


@pytest.mark.parametrize("loss", ["kl", *MIXED])
def test_a_class_that_neither_side_takes_leaves_no_nan(loss: Loss) -> None:
    student, teacher = (side.float() for side in sides(7, 3, 6))
    student[:, 1] = teacher[:, 1] = teacher[:, 2] = -math.inf
    student.requires_grad_()
    found = by_row(loss, student, Dense(teacher), 2.0, options(loss, 0.3))
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert bool(found.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert gradient[:, 1].tolist() == [0, 0, 0]


def test_reverse_kl_is_infinite_where_only_the_student_goes() -> None:
    student, teacher = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, -math.inf], [0.0, 0.0, 0.0]])
    assert by_row("reverse_kl", student, Dense(teacher), 1.0).tolist() == [math.inf, 0.0]


def test_a_tail_below_the_rounding_keeps_reverse_kl_finite() -> None:
    stored = TopK(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]]).log(), "tail")
    student = torch.zeros(1, 4, requires_grad=True)
    found = divergences.reverse_kl(student, stored, 1.0)
    found.backward()
    assert float(found.detach()) == pytest.approx(
        0.5 * math.log(0.5 / torch.finfo(torch.float32).eps) + 0.5 * math.log(0.5), rel=1e-4
    )
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_first(half: torch.dtype) -> None:
    student, teacher = (side.to(half) for side in sides(8, 4, 6))
    drawn = Sampled(torch.tensor([[1, 4]] * 4, dtype=torch.int32), torch.tensor([[3, 1]] * 4, dtype=torch.uint8))
    for loss in LOSSES:
        for stored in (Dense(teacher), topk_of(teacher, 3, "tail")):
            found = by_row(loss, student, stored, 1.5, options(loss, 0.5))
            assert found.dtype == torch.float32
            wide = replace(stored, log_probs=stored.log_probs.double())
            expected = by_row(loss, student.double(), wide, 1.5, options(loss, 0.5))
            assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-5)
    assert by_row("kl", student, drawn, 1.0).dtype == torch.float32


@given(**shapes, draws=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_sampled(seed: int, rows: int, classes: int, draws: int) -> None:
    student, _ = sides(seed, rows, classes)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(classes, (rows, draws), generator=generator)
    counts = torch.randint(0, 4, (rows, draws), generator=generator)
    counts[:, 0] += 1
    student[:, (ids[0, 0] + 1) % classes] -= 50
    expected = []
    for scores, row, often in zip(student.tolist(), ids.tolist(), counts.tolist(), strict=True):
        q = softmax(scores, 1)
        expected.append(-sum(n * math.log(q[index]) for index, n in zip(row, often, strict=True)) / sum(often))
    assert by_row("kl", student, Sampled(ids, counts), 1.0).tolist() == pytest.approx(expected, rel=1e-9)


def test_a_draw_that_never_came_counts_nowhere() -> None:
    student = torch.tensor([[0.0, -math.inf, 1.0]], requires_grad=True)
    loss = divergences.kl(student, Sampled(torch.tensor([[0, 1]]), torch.tensor([[2, 0]])), 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.e))
    assert student.grad is not None
    assert student.grad[0, 1] == 0


def test_draws_are_unbiased_and_the_top_k_is_not() -> None:
    """The mean over many draws of 4 converges to the dense loss and gradient; top-4 does not, however many rows it sees."""
    rows, k = 40_000, 4
    student, teacher = sides(9, 1, 12, spread=1.0)
    entropy = -(teacher.exp() * teacher).sum()
    ids = torch.multinomial(
        teacher.exp().expand(rows, -1), k, replacement=True, generator=torch.Generator().manual_seed(1)
    )
    once = student.clone().requires_grad_()

    def value_and_gradient(stored: Dense | TopK | Sampled, count: int) -> tuple[Tensor, Tensor]:
        loss = divergences.kl(once.expand(count, -1), stored, 1.0)
        return loss.detach(), torch.autograd.grad(loss, once)[0]

    dense, slope = value_and_gradient(Dense(teacher), 1)
    sampled, drawn_slope = value_and_gradient(Sampled(ids, torch.ones_like(ids)), rows)
    each = by_row("kl", student.expand(rows, -1), Sampled(ids, torch.ones_like(ids)), 1.0)
    error = float(each.std()) / rows**0.5
    assert abs(float(sampled - entropy - dense)) < 4 * error
    assert float((drawn_slope - slope).abs().max()) < 4 * (0.25 / rows / k) ** 0.5
    for rest in ("tail", "renormalise"):
        biased, biased_slope = value_and_gradient(topk_of(teacher, k, rest), 1)  # type: ignore[arg-type]
        assert abs(float(biased - dense)) > 20 * error, rest
        assert float((biased_slope - slope).abs().max()) > 20 * (0.25 / rows / k) ** 0.5, rest


def test_named_functions_are_means_over_rows() -> None:
    student, teacher = sides(10, 5, 6)
    stored = Dense(teacher)
    named = {
        "kl": divergences.kl(student, stored, 1.5),
        "reverse_kl": divergences.reverse_kl(student, stored, 1.5),
        "jsd": divergences.jsd(student, stored, 1.5, 0.2),
        "skew_kl": divergences.skew_kl(student, stored, 1.5, 0.2),
        "skew_reverse_kl": divergences.skew_reverse_kl(student, stored, 1.5, 0.2),
    }
    for loss in LOSSES:
        expected = slow_dense(loss, student, teacher, 1.5, 0.2)
        assert float(named[loss]) == pytest.approx(sum(expected) / 5), loss


def test_parts_are_the_rows_asked_for() -> None:
    student, teacher = sides(11, 6, 5)
    drawn = Sampled(torch.arange(12).reshape(6, 2) % 5, torch.ones(6, 2))
    numbers = torch.tensor([4, 1])
    for stored in (Dense(teacher), topk_of(teacher, 2, "tail"), drawn):
        whole = by_row("kl", student, stored, 1.0)
        for where in (slice(2, 5), numbers):
            assert torch.equal(by_row("kl", student[where], stored.part(where), 1.0), whole[where])


@pytest.mark.parametrize("loss", ["reverse_kl", *MIXED])
def test_draws_serve_kl_alone(loss: Loss) -> None:
    reason = unsupported(loss, "sampled", 1.0)
    assert reason is not None
    assert loss in reason
    assert "use kl, or store dense or topk rows" in reason
    drawn = Sampled(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1))
    with pytest.raises(ModelError, match=loss):
        by_row(loss, torch.zeros(1, 3), drawn, 1.0, 0.5)
    assert unsupported(loss, "dense", 2.0) is unsupported(loss, "topk", 2.0) is None


def test_draws_cannot_be_softened() -> None:
    assert unsupported("kl", "sampled", 1.0) is None
    drawn = Sampled(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1))
    with pytest.raises(ModelError, match="temperature 1 and cannot be softened to 2"):
        divergences.kl(torch.zeros(1, 3), drawn, 2.0)


@pytest.mark.parametrize("mix", [None, 0.0, 1.0, -0.5, math.nan])
def test_a_mix_outside_of_its_range_is_refused(mix: float | None) -> None:
    for loss in MIXED:
        with pytest.raises(RecipeError, match=loss):
            by_row(loss, torch.zeros(1, 3), Dense(torch.zeros(1, 3)), 1.0, mix)


def test_sides_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match=r"\[2, 8\], the teacher's \[2, 6\].*tokenizer's size"):
        divergences.kl(torch.zeros(2, 8), Dense(torch.zeros(2, 6)), 1.0)
    few = torch.zeros(1, 2, dtype=torch.long)
    for stored in (TopK(few, torch.zeros(1, 2), "renormalise"), Sampled(few, torch.ones(1, 2))):
        with pytest.raises(ModelError, match="2 rows, the teacher's 1"):
            divergences.kl(torch.zeros(2, 8), stored, 1.0)


def test_scores_in_groups_and_their_gradients_are_those_of_gather_scatter_and_logsumexp() -> None:
    torch.manual_seed(3)
    scores = torch.randn(5, 9, dtype=torch.float64)
    scores[1, 4] = -math.inf
    scores[2] = -math.inf
    scores[2, :3] = torch.tensor([0.5, 1.0, 2.0])
    ids = torch.stack([torch.randperm(9)[:3] for _ in range(5)])
    ids[2] = torch.tensor([0, 1, 2])  # nothing is left outside
    weights = torch.randn(5, 4, dtype=torch.float64)
    weights[2, 3] = 0
    found = []
    for grouped in (divergences._Grouped.apply, _grouped_slowly):
        leaf = scores.clone().requires_grad_()
        groups = grouped(leaf, ids)
        (groups.nan_to_num(neginf=0) * weights).sum().backward()
        found.append((groups.detach(), leaf.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1][[0, 1, 3, 4]], found[1][1][[0, 1, 3, 4]])
    torch.testing.assert_close(found[0][1][2], F.pad(weights[2, :3], (0, 6)))  # where torch's own logsumexp gives NaN


def _grouped_slowly(scores: Tensor, ids: Tensor) -> Tensor:
    others = scores.scatter(-1, ids, -math.inf).logsumexp(-1, keepdim=True)
    return torch.cat([scores.gather(-1, ids), others], -1)
