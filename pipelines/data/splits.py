"""Cutting splits: seeded, stratified by label, near-duplicates kept together, the same in whatever order rows come."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence


def cut(
    texts: Sequence[str], labels: Sequence[str], groups: Sequence[int], fractions: Mapping[str, float], seed: int
) -> list[str]:
    """The split of every row: `train`, or one of `fractions` (split -> share of the rows).

    Rows of one group share a split. Each class gives each split its share rounded, and at least one row where it has
    enough; only groups that fit nowhere can move a share, by no more than their own rows.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    keyed = sorted((_key(seed, [(texts[i], labels[i]) for i in rows]), rows) for rows in members.values())
    # Large groups first, while every split has room; within a size the seeded key decides, not the order of the file.
    keyed.sort(key=lambda item: -len(item[1]))
    room = _quotas(labels, fractions)
    splits = [""] * len(texts)
    for key, rows in keyed:
        split = _choose(key, Counter(labels[i] for i in rows), room)
        for row in rows:
            splits[row] = split
            room[split][labels[row]] -= 1
    return splits


def _key(seed: int, rows: Sequence[tuple[str, str]]) -> int:
    """A group's place in the draw: a hash of the seed and its content."""
    text, label = min(rows)
    return int.from_bytes(hashlib.sha256(f"{seed}\0{text}\0{label}".encode()).digest()[:8])


def _quotas(labels: Sequence[str], fractions: Mapping[str, float]) -> dict[str, Counter[str]]:
    """Rows of each class that each split should get; train takes what rounding leaves."""
    quotas: dict[str, Counter[str]] = {"train": Counter(labels), **{split: Counter() for split in fractions}}
    for label, count in Counter(labels).items():
        for split, fraction in fractions.items():
            rows = max(round(count * fraction), 1 if count > len(fractions) else 0)
            quotas[split][label] = min(
                rows, quotas["train"][label] - 1
            )  # never the last one: train must know the class
            quotas["train"][label] -= quotas[split][label]
    return quotas


def _choose(key: int, needs: Counter[str], room: Mapping[str, Counter[str]]) -> str:
    """A split that has room for the whole group, drawn in proportion to the room; else the one that overflows least."""
    fits = {split: left for split, left in room.items() if all(left[label] >= need for label, need in needs.items())}
    if not fits:
        return min(room, key=lambda split: sum(max(0, need - room[split][label]) for label, need in needs.items()))
    weights = [min(left[label] for label in needs) for left in fits.values()]
    place = key % sum(weights)
    for split, weight in zip(fits, weights, strict=True):
        place -= weight
        if place < 0:
            return split
    raise AssertionError("a draw below the sum of the weights falls into one of them")
