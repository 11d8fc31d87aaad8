"""A teacher of one's own in a new recipe of a classifier: its digest, and what follows from its sizes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.bundle import sha256_of
from pipelines.errors import ModelError
from pipelines.sources import WEIGHTS, located

#: Up to so many numbers a token: by how much slower such an encoder learns than the template's of 384. Between 3e-4 and 3e-5, as Turc et al.
#: (2019, arXiv:1908.08962) take for BERTs of 128 to 768.
SLOWER = ((511, 1), (767, 3), (1023, 6), (math.inf, 10))
#: Of FFN width and heads, those of an elastic student's parts.
WIDTHS, HEADS = (1, 2 / 3, 1 / 2, 1 / 3, 1 / 6), (1, 2 / 3, 1 / 3)
#: The FFN of a fixed shape, and the teacher's bytes over those that the gate allows.
NARROW, SMALLER = 2 / 3, 6
#: Widths are multiples of it, for kernels like it; so are rows whose numbers are rounded in blocks.
STEP = 32
#: A tokenizer's bytes, and the room that an estimate in int8 leaves for biases and graph.
TOKENIZER_BYTES, ROOM = 700_000, 1.25


@dataclass(frozen=True)
class Sizes:
    """An encoder's sizes; FFN width and heads are None where its architecture or checkpoint has none that can be cut."""

    parameters: int
    #: Rows of the embeddings, and numbers a row.
    tokens: int
    token_size: int
    depth: int
    hidden_size: int
    intermediate_size: int | None
    num_attention_heads: int | None
    #: Tokens of its longest text; None: any.
    context: int | None


@dataclass(frozen=True)
class Teacher:
    """The digest of a pretrained encoder's weights, and its sizes."""

    sha256: str
    sizes: Sizes


def look_at(source: str) -> Teacher:
    """A teacher named as `teach.source` names it. Raises ModelError where it is not there or cannot be one, TransientError of a hub."""
    from pipelines.families.context import context_of
    from pipelines.families.encoder import EncoderClassifier

    folder, family = located(source), EncoderClassifier()
    model = family.load_pretrained(folder, ["one", "other"]).model
    if not family.depth(model):
        raise ModelError(f"{source}: a model without layers has none to give a student; name an encoder that has")
    width = heads = None
    try:
        first = family.units(model)[0]
        width, heads = first.ffn_down.in_features, first.queries.out_features // first.head_size
    except ModelError:
        pass  # as prune says of it too: depth and vocabulary alone
    tokens, token_size = model.get_input_embeddings().weight.shape
    hidden = model.config.hidden_size
    parameters = sum(weights.numel() for weights in model.base_model.parameters())
    return Teacher(
        sha256_of(folder / WEIGHTS),
        Sizes(parameters, tokens, token_size, family.depth(model), hidden, width, heads, context_of(model)),
    )


def taught_by(recipe: Mapping[str, Any], source: str, teacher: Teacher) -> dict[str, Any]:
    """A fitted classifier's recipe with the teacher of this source instead of the template's: every second layer, and a narrower FFN."""
    found, sizes = copy.deepcopy(dict(recipe)), teacher.sizes
    found["teach"] |= {"source": source, "sha256": teacher.sha256}
    found["task"]["max_length"] = min(found["task"]["max_length"], sizes.context or math.inf)
    slower = next(factor for limit, factor in SLOWER if sizes.hidden_size <= limit)
    for training in (found["teach"]["training"], found["distill"]["training"], found["prune"]["recovery"]):
        training["learning_rate"] = float(f"{training['learning_rate'] / slower:.1g}")
    layers = every_second(list(range(sizes.depth)))
    found["distill"]["student"]["layers"] = found["label"]["hidden_layers"] = layers
    narrow = _shares(sizes.intermediate_size, (NARROW,), STEP)
    found["prune"]["intermediate_size"] = narrow[0] if narrow else None
    _allow(found, sizes, len(layers))
    return _of_logits(found) if sizes.intermediate_size is None else found


def _of_logits(recipe: dict[str, Any]) -> dict[str, Any]:
    """Without the hidden states of stacks that do not normalize them: MobileBERT's are beyond float16, in which they are stored."""
    recipe["label"]["hidden_layers"] = []
    for stage in ("distill", "prune"):
        recipe[stage]["losses"] |= {"hidden_mse": 0.0, "hidden_cosine": 0.0}
    return recipe


def _allow(recipe: dict[str, Any], sizes: Sizes, layers: int) -> None:
    """Bytes that the gate allows: a sixth of the teacher's, or what a small teacher's embeddings and the student's layers come to in int8."""
    gate, prune = recipe["gate"], recipe["prune"]
    table = min(sizes.tokens, prune["vocabulary"]["keep_first"]) * sizes.token_size
    layer = (sizes.parameters - sizes.tokens * sizes.token_size) / sizes.depth
    cut = (
        0
        if sizes.intermediate_size is None
        else 2 * sizes.hidden_size * (sizes.intermediate_size - prune["intermediate_size"])
    )
    teacher = 4 * sizes.parameters
    gate["max_bytes"] = max(teacher // SMALLER, math.ceil(ROOM * (table + layers * (layer - cut)) + TOKENIZER_BYTES))
    gate["min_size_ratio"] = min(gate["min_size_ratio"], max(1.0, math.floor(10 * teacher / gate["max_bytes"]) / 10))


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


def elastic_for(recipe: dict[str, Any], sizes: Sizes) -> None:
    """Fit the sections of a budget to a teacher: the parts, and of the quantizations those that its width allows."""
    student, search = recipe["distill"]["student"], recipe["explore"]
    student |= parts_of(sizes)
    widest = min(student["without_layers"]["hidden_size"], sizes.hidden_size)
    student["without_layers"]["hidden_size"] = widest - widest % STEP or widest
    if sizes.hidden_size % STEP:
        forms = search["quantizations"].items()
        search["quantizations"] = {name: form for name, form in forms if not _in_blocks(form)}
    if sizes.intermediate_size is None:
        _of_logits(recipe)


def _in_blocks(form: Mapping[str, Any]) -> bool:
    """Whether a quantization rounds rows of the embeddings in blocks, which must divide them."""
    return form["technique"] == "mixed" or form.get("embeddings") is not None


def every_second(layers: list[int]) -> list[int]:
    """Every second layer, the last among them (Sanh et al. 2019)."""
    return layers[::-1][::2][::-1]


def _shares(whole: int | None, shares: tuple[float, ...], step: int) -> list[int]:
    """Shares of a size, all but the whole in multiples of a step, the largest first; none of what cannot be cut."""
    if whole is None:
        return []
    found = {whole if share == 1 else min(whole, step * max(1, round(whole * share / step))) for share in shares}
    return sorted(found, reverse=True)
