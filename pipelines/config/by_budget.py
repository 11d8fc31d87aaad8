"""What a recipe must hold, whatever its task, where a budget shapes the model."""

from __future__ import annotations

from collections.abc import Sequence


def check_by_budget(*, elastic: bool, search: bool, budget: bool, prune: bool, quantize: bool) -> None:
    """Raise ValueError where some of its sections ask for a model by budget, and some do not."""
    parts = {
        "distill.student.kind: elastic": elastic,
        "explore.technique: search": search,
        "budget": budget,
        "prune.technique: chosen": prune,
        "quantize.technique: chosen": quantize,
    }
    missing = [name for name, there in parts.items() if not there]
    if missing and len(missing) < len(parts):
        there = ", ".join(name for name in parts if name not in missing)
        raise ValueError(
            f"a model by budget needs all of {', '.join(parts)}; the recipe has {there}, and lacks {', '.join(missing)}"
        )


def check_parts(layers: Sequence[Sequence[int]], widths: Sequence[int], heads: Sequence[int]) -> None:
    """Raise ValueError where an elastic student's shapes are not parts of the first one."""
    for depth in layers:
        if list(depth) != sorted(set(depth)) or not set(depth) <= set(layers[0]):
            raise ValueError(
                f"layers {list(depth)}: name each layer once, in order, and only layers of the first list {list(layers[0])}"
            )
    depths = [len(depth) for depth in layers]
    if depths != sorted(depths, reverse=True) or len({tuple(depth) for depth in layers}) < len(layers):
        raise ValueError(f"layers {[list(depth) for depth in layers]}: name each depth once, the deepest first")
    for name, sizes in (("intermediate_sizes", widths), ("num_attention_heads", heads)):
        if list(sizes) != sorted(set(sizes), reverse=True):
            raise ValueError(f"{name} {list(sizes)}: name each size once, the largest first")
