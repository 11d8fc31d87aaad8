from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.errors import ModelError
from pipelines.families.widths import widths_of
from pipelines.techniques.axes import EVERYWHERE, Parts, layer_of, positions, stacks_of
from pipelines.techniques.cutting import Kept, silenced
from pipelines.techniques.importance import Importance, kept, layer_importance, magnitude, taylor
from pipelines.techniques.probing import probed
from pipelines.techniques.slicing import Shape, shape_of, sliced
from tests.generators import ARCHITECTURES, difference, generator, inputs
from tests.tiny_generators import HIDDEN, WIDTH

CASES = [
    ("gpt2", "intermediate_size"),
    ("llama", "intermediate_size"),
    ("phi3", "intermediate_size"),
    ("mixtral", "num_experts"),
    ("phi", "num_attention_heads"),
    ("t5", "num_attention_heads"),
    ("llama", "hidden_size"),
    ("gemma2", "hidden_size"),
]
#: A smooth loss for finite differences: no token changes its experts, and T5's wide random scores stay calm.
SMOOTH: dict[str, dict[str, Any]] = {"mixtral": {"num_experts_per_tok": 4}, "t5": {"initializer_factor": 0.5}}
BATCHES = 2
START = Shape(3, 0, 8, 4, 2, HIDDEN, 0)


def calibration(model: Any) -> Iterator[Tensor]:
    """Cross-entropy on two fixed random batches."""
    for seed in range(BATCHES):
        given = inputs(model, seed)
        yield model(**given, labels=given["input_ids"], use_cache=False).loss


def total(model: Any) -> float:
    with torch.no_grad():
        return sum(float(loss) for loss in calibration(model))


def one_batch(model: Any) -> Iterator[Tensor]:
    yield next(calibration(model))


def scaled(model: Any, parts: Parts, layer: str, unit: int, factor: float) -> float:
    """The loss of one batch with all weights of a unit multiplied; the slow way to a first-order value."""
    stacks, widths = stacks_of(model), widths_of(model.config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for axis in parts.axes:
            if axis.tensor in weights and (layer == EVERYWHERE or layer_of(axis.tensor, stacks) == layer):
                along = torch.ones(weights[axis.tensor].shape[axis.axis], dtype=torch.float32)
                along[positions(axis, [unit], widths)] = factor
                shape = [-1 if axis.axis == index else 1 for index in range(weights[axis.tensor].ndim)]
                weights[axis.tensor].mul_(along.reshape(shape))
        loss = float(next(one_batch(model)))
    model.load_state_dict(before)
    return loss


@pytest.mark.parametrize(("kind", "width"), CASES)
def test_taylor_is_the_slope_of_the_loss_as_a_unit_shrinks(kind: str, width: str) -> None:
    model = generator(kind, **SMOOTH.get(kind, {}))
    parts = probed(model, width, stacks_of(model))
    scores = taylor(model, one_batch, [width])[width]
    step = 1e-2  # the losses are float32: a smaller step drowns in rounding, so the curvature is taken out (Richardson)
    for layer, values in list(scores.items())[:2]:
        for unit in range(min(4, len(values))):
            slopes = []
            for size in (step, step / 2):
                high, low = (scaled(model, parts, layer, unit, 1 + sign * size) for sign in (1, -1))
                slopes.append((high - low) / (2 * size))
            slope = (4 * slopes[1] - slopes[0]) / 3
            assert float(values[unit]) == pytest.approx(abs(slope), rel=0.01, abs=2e-3)


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2"])
def test_taylor_ranks_columns_as_taking_them_out_does(kind: str) -> None:
    width = "intermediate_size"
    model = generator(kind)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "emb" not in name and "wte" not in name:
                weight.mul_(0.3)
    stacks = stacks_of(model)
    parts = {width: probed(model, width, stacks)}
    scores, norms = taylor(model, calibration, [width])[width], magnitude(model, [width])[width]
    whole, layer = total(model), next(iter(scores))
    harm = []
    for unit in range(WIDTH):
        keep: dict[str, Any] = dict.fromkeys(scores, range(WIDTH))
        keep[layer] = [other for other in range(WIDTH) if other != unit]
        harm.append(abs(total(silenced(model, {width: keep}, parts, stacks)) - whole))
    assert ranks_agree(scores[layer], harm) > 0.6
    assert ranks_agree(scores[layer], harm) > ranks_agree(norms[layer], harm) + 0.2


def ranks_agree(values: Tensor, harm: list[float]) -> float:
    """Spearman's rank correlation."""
    ranks = [series.argsort().argsort().float() for series in (values, torch.tensor(harm))]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def test_the_absolute_variant_is_never_smaller_and_gradients_are_left_clean() -> None:
    model = generator("llama")
    widths = ["intermediate_size", "num_attention_heads", "hidden_size"]
    plain, absolute = taylor(model, calibration, widths), taylor(model, calibration, widths, absolute=True)
    for width in widths:
        for layer in plain[width]:
            assert bool((absolute[width][layer] > plain[width][layer]).all())
    assert all(weight.grad is None for weight in model.parameters())


def test_magnitude_is_the_norm_of_all_weights_of_a_unit() -> None:
    model = generator("phi3")
    scores = magnitude(model, ["intermediate_size", "num_attention_heads"])
    fused, down = (getattr(model.model.layers[1].mlp, name).weight.detach() for name in ("gate_up_proj", "down_proj"))
    expected = torch.cat([fused[5], fused[WIDTH + 5], down[:, 5]]).norm()
    assert float(scores["intermediate_size"]["model.layers.1"][5]) == pytest.approx(float(expected))
    queries, out = (getattr(model.model.layers[1].self_attn, name).weight.detach() for name in ("qkv_proj", "o_proj"))
    own = queries[24:32].square().sum() + out[:, 24:32].square().sum()
    group = queries[40:48].square().sum() + queries[56:64].square().sum()
    last = scores["num_attention_heads"]["model.layers.1"][3]
    assert float(last) == pytest.approx(float((own + group / 2).sqrt()))


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo", "mixtral", "t5"])
@pytest.mark.parametrize("method", ["loss", "cosine"])
def test_a_layer_that_does_nothing_matters_least(kind: str, method: Any) -> None:
    model = generator(kind)
    prefix = stacks_of(model)["num_hidden_layers"]
    with torch.no_grad():
        for weight in model.get_submodule(f"{prefix}1").parameters():
            weight.zero_()
    layers = layer_importance(model, calibration, method)
    assert set(layers) == set(stacks_of(model))
    assert abs(float(layers["num_hidden_layers"][1])) < 1e-5
    if method == "cosine":
        assert int(layers["num_hidden_layers"].argmin()) == 1


def test_a_layers_importance_is_the_measured_rise_of_the_loss() -> None:
    model = generator("bart")
    layers = layer_importance(model, calibration, "loss")
    whole = total(model)
    del model.model.encoder.layers[2]
    assert float(layers["num_encoder_layers"][2]) == pytest.approx(total(model) - whole, abs=1e-5)


def test_the_only_layer_is_worth_infinity() -> None:
    layers = layer_importance(generator("llama", num_hidden_layers=1), calibration, "loss")
    assert layers["num_hidden_layers"].tolist() == [float("inf")]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_units_that_are_zero_are_the_first_to_go(kind: str) -> None:
    model, width = generator(kind), "intermediate_size"
    stacks = stacks_of(model)
    parts = {width: probed(model, width, stacks)}
    names = list(magnitude(model, [width])[width])
    alive = {name: sorted({*range(WIDTH)} - {*range(index, index + 8)}) for index, name in enumerate(names)}
    silent = silenced(model, {width: alive}, parts, stacks)
    start = shape_of(silent)
    keep = kept(
        replace(start, intermediate_size=WIDTH - 8), start, Importance({}, taylor(silent, calibration, [width]))
    )
    assert keep == Kept({}, {width: alive})
    assert difference(silent, sliced(silent, keep)) < 1e-5


def importance(**units: list[float]) -> Importance:
    return Importance(
        {"num_hidden_layers": torch.tensor([0.3, 0.1, 0.2])},
        {width: {"a": torch.tensor(values)} for width, values in units.items()},
    )


def test_the_best_are_kept_in_their_old_order() -> None:
    found = importance(intermediate_size=[1, 7, 3, 4, 5, 2, 6, 0], num_attention_heads=[1, 2, 4, 3])
    target = replace(START, num_hidden_layers=2, intermediate_size=3, num_attention_heads=2, num_key_value_heads=1)
    keep = kept(target, START, found)
    assert keep.layers == {"num_hidden_layers": [0, 2]}
    assert keep.units == {"intermediate_size": {"a": [1, 4, 6]}, "num_attention_heads": {"a": [2, 3]}}
    inside = replace(START, num_attention_heads=2)
    assert kept(inside, START, found).units == {"num_attention_heads": {"a": [1, 2]}}
    assert kept(START, START, found) == Kept()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": 9}, "intermediate_size cannot become 9: there are 8"),
        ({"num_hidden_layers": 0}, "num_hidden_layers cannot become 0: there are 3"),
        ({"num_experts": 2}, "num_experts cannot become 2: there are 0"),
        ({"num_attention_heads": 3}, "3 heads do not fit 2 KV groups"),
        ({"num_attention_heads": 4, "num_key_value_heads": 1}, "4 heads do not fit 1 KV groups"),
        ({"hidden_size": 16}, "its importance was not measured"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, int], message: str) -> None:
    found = importance(num_attention_heads=[1, 2, 4, 3], num_experts=[])
    with pytest.raises(ModelError, match=message):
        kept(replace(START, **changes), START, found)


def test_nothing_to_measure_with_is_refused() -> None:
    model = generator("llama")
    with pytest.raises(ModelError, match="at least one calibration loss"):
        taylor(model, lambda _: iter(()), ["intermediate_size"])
    with pytest.raises(ModelError, match="at least one calibration loss"):
        layer_importance(model, lambda _: iter(()), "loss")
    norm = model.model.norm.weight
    with pytest.raises(ModelError, match="no gradient reached the weights of intermediate_size"):
        taylor(model, lambda _: iter([norm.sum()]), ["intermediate_size"])
