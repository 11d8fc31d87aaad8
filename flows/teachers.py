"""A teacher of one's own in a new recipe: its digest, and what follows from its sizes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.bundle import sha256_of
from pipelines.sources import WEIGHTS, located

if TYPE_CHECKING:
    from pipelines.families.sizes import Sizes

#: Up to so many numbers a token: by how much slower such an encoder learns than the template's of 384. Between 3e-4 and 3e-5, as Turc et al.
#: (2019, arXiv:1908.08962) take for BERTs of 128 to 768.
SLOWER = ((511, 1), (767, 3), (1023, 6), (math.inf, 10))
#: Of FFN width and heads, those of an elastic student's parts.
WIDTHS, HEADS = (1, 2 / 3, 1 / 2, 1 / 3, 1 / 6), (1, 2 / 3, 1 / 3)
#: The FFN of a fixed shape, and the teacher's bytes over those that the gate allows.
NARROW, SMALLER = 2 / 3, 6
#: Widths are multiples of it: kernels like it.
STEP = 32


@dataclass(frozen=True)
class Teacher:
    """The digest of a pretrained encoder's weights, and its sizes."""

    sha256: str
    sizes: Sizes


def look_at(source: str) -> Teacher:
    """A teacher named as `teach.source` names it. Raises ModelError where it is not there or not one that is served, TransientError of a hub."""
    from pipelines.families.sizes import sizes_of

    folder = located(source)
    return Teacher(sha256_of(folder / WEIGHTS), sizes_of(folder))


def taught_by(recipe: Mapping[str, Any], source: str, teacher: Teacher) -> dict[str, Any]:
    """A fitted recipe of an encoder with the teacher of this source instead of the template's: every second layer, and a narrower FFN."""
    found, sizes = copy.deepcopy(dict(recipe)), teacher.sizes
    found["teach"] |= {"source": source, "sha256": teacher.sha256}
    slower = next(factor for limit, factor in SLOWER if sizes.hidden_size <= limit)
    for training in (found["teach"]["training"], found["distill"]["training"], found["prune"]["recovery"]):
        training["learning_rate"] = float(f"{training['learning_rate'] / slower:.1g}")
    layers = every_second(list(range(sizes.depth)))
    found["distill"]["student"]["layers"] = layers
    if "hidden_layers" in found["label"]:
        found["label"]["hidden_layers"] = layers
    narrow = _shares(sizes.intermediate_size, (NARROW,), STEP)
    found["prune"]["intermediate_size"] = narrow[0] if narrow else None
    _allow(found["gate"], 4 * sizes.parameters // SMALLER)
    return found


def parts_of(sizes: Sizes) -> dict[str, Any]:
    """What an elastic student of this teacher can be cut to."""
    depths = [every_second(list(range(sizes.depth)))]
    while len(depths[-1]) > 1:
        depths.append(every_second(depths[-1]))
    return {
        "layers": depths,
        "intermediate_sizes": _shares(sizes.intermediate_size, WIDTHS, STEP),
        "num_attention_heads": _shares(sizes.num_attention_heads, HEADS, 1),
    }


def every_second(layers: list[int]) -> list[int]:
    """Every second layer, the last among them (Sanh et al. 2019)."""
    return layers[::-1][::2][::-1]


def _shares(whole: int | None, shares: tuple[float, ...], step: int) -> list[int]:
    """Shares of a size in multiples of a step, the largest first; none of what cannot be cut."""
    if whole is None:
        return []
    return sorted({min(whole, step * max(1, round(whole * share / step))) for share in shares}, reverse=True)


def _allow(gate: dict[str, Any], most: int) -> None:
    """Write the bytes that a gate allows, in either of its forms."""
    if "bounds" in gate:
        for bound in gate["bounds"]:
            if bound["metric"] == "model.bytes":
                bound["at_most"] = most
    else:
        gate["max_bytes"] = most
