"""Near-duplicates: texts whose sets of character 4-grams have a Jaccard similarity of at least a threshold.

The join is exact, not sampled: prefix, length and position filters (PPJoin, Xiao et al. 2008) and a bound by bitmaps
(Sandes et al. 2017) only drop pairs that provably miss the threshold; what is left is counted. Arithmetic is in
integers, so a pair that lies on the threshold is never lost to rounding.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

GRAM = 4
#: Candidate pairs held in memory at once.
CHUNK = 1 << 21
#: 64-bit words of a text's bitmap.
WORDS = 4


class _Squeeze(dict[int, str]):
    """Translation table that turns punctuation, white space and control characters into spaces; filled as needed."""

    def __missing__(self, point: int) -> str:
        letter = chr(point)
        self[point] = " " if unicodedata.category(letter)[0] in "PZC" else letter
        return self[point]


def normalise(texts: Sequence[str]) -> list[str]:
    """Case folded, NFKC, punctuation and white space squeezed to one space; text of nothing else keeps its marks."""
    table = _Squeeze()
    folded = [unicodedata.normalize("NFKC", text).casefold() for text in texts]
    return [" ".join(text.translate(table).split()) or " ".join(text.split()) for text in folded]


def grams(text: str) -> set[str]:
    """Character 4-grams of a normalised text; a shorter text is its own one gram."""
    return {text[start : start + GRAM] for start in range(max(1, len(text) - GRAM + 1))}


def near_groups(texts: Sequence[str], similarity: float) -> list[int]:
    """Group of every text: near-duplicates, and near-duplicates of those, share one. Numbered as they appear."""
    unique, places = _unique(texts)
    parent = list(range(len(unique)))
    for left, right in near_pairs(unique, similarity, None):
        _unite(parent, left, right)
    roots = [_root(parent, place) for place in places]
    numbers = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    return [numbers[root] for root in roots]


def near_matches(texts: Sequence[str], against: Sequence[str], similarity: float) -> list[int | None]:
    """For every text the first of `against` that is its near-duplicate, or None."""
    if not texts or not against:
        return [None] * len(texts)
    unique, places = _unique([*texts, *against])
    count = len(texts)
    first = {place: index for index, place in reversed(list(enumerate(places[count:])))}
    found: dict[int, int] = {place: first[place] for place in places[:count] if place in first}
    asked = set(places[:count])
    # A text that stands on both sides is matched by its equal already, yet still serves others as a match.
    sides = np.array([(place in asked) + 2 * (place in first) for place in range(len(unique))], dtype=np.int8)
    for pair in near_pairs(unique, similarity, sides):
        for mine, other in (pair, pair[::-1]):
            if mine in asked and other in first:
                found[mine] = min(found.get(mine, first[other]), first[other])
    return [found.get(place) for place in places[:count]]


def near_pairs(normalised: Sequence[str], similarity: float, sides: NDArray[np.int8] | None) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of distinct normalised texts at or above the similarity, sorted.

    With `sides` (1: asks, 2: answers, 3: both) only pairs of which one asks and the other answers.
    """
    if len(normalised) < 2:
        return []
    share = Fraction(str(similarity)).limit_denominator(10**6)
    sets = _GramSets.of(normalised)
    keys = [_survivors(sets, share, left, right, sides) for left, right in _candidates(sets, share)]
    pairs = np.unique(np.concatenate(keys)) if keys else np.empty(0, dtype=np.int64)
    found = [
        (low, high)
        for low, high in (divmod(int(key), len(sets.sizes)) for key in pairs)
        if _holds(sets, share, low, high)
    ]
    return found


@dataclass(frozen=True)
class _GramSets:
    """Gram ids of all texts in one array, each text's sorted from rare to common."""

    ids: Integers  # [grams]
    starts: Integers  # [texts + 1]
    sizes: Integers  # [texts]
    bitmaps: NDArray[np.uint64]  # [texts, WORDS]

    @classmethod
    def of(cls, normalised: Sequence[str]) -> _GramSets:
        numbers: dict[str, int] = {}
        flat: list[int] = []
        sizes = np.zeros(len(normalised), dtype=np.int64)
        for index, text in enumerate(normalised):
            own = grams(text)
            sizes[index] = len(own)
            flat += [numbers.setdefault(gram, len(numbers)) for gram in own]
        ids = np.array(flat, dtype=np.int64)
        rank = np.empty(len(numbers), dtype=np.int64)
        names = sorted(numbers)  # ties of frequency in the order of the grams: the same work whatever the hash seed
        order = np.array([numbers[name] for name in names], dtype=np.int64)
        rank[order[np.argsort(np.bincount(ids)[order], kind="stable")]] = np.arange(len(numbers))
        owner = np.repeat(np.arange(len(sizes)), sizes)
        ranked = rank[ids]
        ids = ranked[np.lexsort((ranked, owner))]
        bitmaps = np.zeros((len(sizes), WORDS), dtype=np.uint64)
        bit = (ids * 2654435761) % (64 * WORDS)
        np.bitwise_or.at(bitmaps, (owner, bit // 64), np.uint64(1) << (bit % 64).astype(np.uint64))
        return cls(ids, np.concatenate([[0], np.cumsum(sizes)]), sizes, bitmaps)

    def of_text(self, index: int) -> list[int]:
        found: list[int] = self.ids[self.starts[index] : self.starts[index + 1]].tolist()
        return found


def _candidates(sets: _GramSets, share: Fraction) -> Iterator[tuple[Integers, Integers]]:
    """Chunks of pairs of postings (places in `ids`) that share a gram of both prefixes and may be long enough."""
    top, bottom = share.numerator, share.denominator
    owner = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
    depth = np.arange(len(sets.ids)) - sets.starts[owner]
    prefix = np.flatnonzero(depth < sets.sizes[owner] + (-top * sets.sizes[owner]) // bottom + 1)
    posting = prefix[np.lexsort((owner[prefix], sets.sizes[owner[prefix]], sets.ids[prefix]))]
    gram, size = sets.ids[posting], sets.sizes[owner[posting]]
    # Postings stand by gram, then by size, so the partners of one are a run that ends just before it.
    span = int(sets.sizes.max()) + 1
    first = np.searchsorted(gram * span + size, gram * span + -((-top * size) // bottom), side="left")
    counts = np.arange(len(posting)) - first
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(posting):
        done = ends[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        many = counts[begin:stop]
        right = np.repeat(np.arange(begin, stop), many)
        left = np.arange(len(right)) - np.repeat(np.cumsum(many) - many, many) + np.repeat(first[begin:stop], many)
        if len(right):
            yield posting[left], posting[right]
        begin = stop


def _survivors(
    sets: _GramSets, share: Fraction, left: Integers, right: Integers, sides: NDArray[np.int8] | None
) -> Integers:
    """Keys low * texts + high of the pairs that position and bitmap bounds leave over."""
    texts = len(sets.sizes)
    one, two = np.searchsorted(sets.starts, left, "right") - 1, np.searchsorted(sets.starts, right, "right") - 1
    if sides is not None:
        keep = ((sides[one] & 1) & (sides[two] >> 1)) | ((sides[two] & 1) & (sides[one] >> 1)) == 1
        left, right, one, two = left[keep], right[keep], one[keep], two[keep]
    needed = _needed(sets.sizes[one] + sets.sizes[two], share)
    # Grams from here on, this one included: a bound at the first shared gram, and every pair passes through its first.
    rest = np.minimum(sets.starts[one + 1] - left, sets.starts[two + 1] - right)
    keep = rest >= needed
    one, two, needed = one[keep], two[keep], needed[keep]
    differing = np.bitwise_count(sets.bitmaps[one] ^ sets.bitmaps[two]).sum(axis=1, dtype=np.int64)
    keep = (sets.sizes[one] + sets.sizes[two] - differing) // 2 >= needed
    one, two = one[keep], two[keep]
    keys: Integers = np.unique(np.minimum(one, two) * texts + np.maximum(one, two))
    return keys


def _needed(total: Integers, share: Fraction) -> Integers:
    """Shared grams that two sets of `total` grams together need: o / (total - o) >= share."""
    found: Integers = -((-share.numerator * total) // (share.numerator + share.denominator))
    return found


def _holds(sets: _GramSets, share: Fraction, low: int, high: int) -> bool:
    shared = len(set(sets.of_text(low)).intersection(sets.of_text(high)))
    return shared * share.denominator >= share.numerator * (int(sets.sizes[low] + sets.sizes[high]) - shared)


def _unique(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Distinct normalised texts, and the place of every text among them: copies must not make a square of pairs."""
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(text, len(numbers)) for text in normalise(texts)]
    return list(numbers), places


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def _unite(parent: list[int], left: int, right: int) -> None:
    one, two = _root(parent, left), _root(parent, right)
    parent[max(one, two)] = min(one, two)
