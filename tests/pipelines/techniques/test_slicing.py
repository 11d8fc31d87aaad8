from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from pipelines.errors import ModelError
from pipelines.techniques.axes import layers_with, stacks_of
from pipelines.techniques.cutting import Kept, silenced
from pipelines.techniques.probing import probed
from pipelines.techniques.slicing import CUTTABLE, Shape, possible, shape_of, sliced, with_heads
from tests.generators import ARCHITECTURES, difference, generator, inputs, logits, tokens
from tests.tiny_generators import HEADS, HIDDEN, WIDTH

TIED_HEADS = ("gpt2", "gpt_neo", "gptj", "gpt_neox", "bart")
HEAD_CUTS = tuple(kind for kind in ARCHITECTURES if kind not in TIED_HEADS)
GROUPED = ("phi3", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "mixtral")


def every_layer(model: Any, width: str, kept: list[list[int]]) -> Kept:
    """The given lists, in turn, for the layers that choose the units of a width."""
    stacks = stacks_of(model)
    layers = layers_with(probed(model, width, stacks), stacks)
    return Kept(units={width: {layer: kept[turn % len(kept)] for turn, layer in enumerate(layers)}})


def without_others(model: Any, keep: Kept) -> Any:
    """The same shape, the weights of every other unit zero."""
    stacks = stacks_of(model)
    return silenced(model, keep.units, {width: probed(model, width, stacks) for width in keep.units}, stacks)


def weights(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_can_be_cut(kind: str) -> None:
    answers = possible(generator(kind))
    two_stacks = kind in ("t5", "flan-t5", "bart")
    refused = {width for width, reason in answers.items() if reason}
    expected = set() if two_stacks else {"num_encoder_layers"}
    expected |= {"num_attention_heads", "hidden_size"} if kind in TIED_HEADS else set()
    expected |= set() if kind == "mixtral" else {"num_experts"}
    assert refused == expected
    if kind in TIED_HEADS:
        assert "hidden_size / heads (32 / 4)" in str(answers["num_attention_heads"])
        assert "its 4 heads together" in str(answers["hidden_size"])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_zero_ffn_columns_can_be_cut(kind: str) -> None:
    model = generator(kind)
    keep = every_layer(model, "intermediate_size", [[*range(0, WIDTH, 2)], [*range(WIDTH // 2)]])
    silent, smaller = without_others(model, keep), sliced(without_others(model, keep), keep)
    assert difference(silent, model) > 0.01
    assert difference(silent, smaller) < 1e-5
    assert shape_of(smaller).intermediate_size == WIDTH // 2
    assert weights(smaller) < weights(model)


@pytest.mark.parametrize("kind", HEAD_CUTS)
def test_zero_groups_can_be_cut(kind: str) -> None:
    model = generator(kind)
    groups = shape_of(model).num_key_value_heads
    first, second = ([2, 3], [0, 1]) if groups == 2 else ([1, 2, 3], [0, 1, 3])
    keep = every_layer(model, "num_attention_heads", [first, second])
    silent, smaller = without_others(model, keep), sliced(without_others(model, keep), keep)
    assert difference(silent, model) > 0.01
    assert difference(silent, smaller) < 1e-5
    assert shape_of(smaller).num_attention_heads == len(first)
    assert shape_of(smaller).num_key_value_heads == groups - 1
    assert shape_of(smaller).hidden_size == HIDDEN


@pytest.mark.parametrize("kind", GROUPED)
def test_zero_heads_can_be_cut_within_their_groups(kind: str) -> None:
    model = generator(kind)
    keep = every_layer(model, "num_attention_heads", [[0, 3], [1, 2]])
    silent, smaller = without_others(model, keep), sliced(without_others(model, keep), keep)
    assert difference(silent, model) > 0.01
    assert difference(silent, smaller) < 1e-5
    assert (shape_of(smaller).num_attention_heads, shape_of(smaller).num_key_value_heads) == (2, 2)


def test_experts_that_the_router_never_chooses_can_be_cut() -> None:
    model = generator("mixtral", num_local_experts=6)
    kept = [[0, 1, 3, 5], [1, 2, 3, 4], [0, 2, 4, 5]]
    keep = every_layer(model, "num_experts", kept)
    with torch.no_grad():
        for layer, chosen in zip(model.model.layers, kept, strict=True):
            router = layer.mlp.gate.weight
            ahead, aside = torch.randn(2, HIDDEN)
            router.zero_()
            # Of a, -a, b and -b the two largest are never below zero, the score of the others.
            router[chosen] = torch.stack([ahead, -ahead, aside, -aside])
    smaller = sliced(model, keep)
    assert difference(model, smaller) < 1e-5
    assert shape_of(smaller).num_experts == 4
    with pytest.raises(ModelError, match="1 experts are too few: each token goes to 2"):
        sliced(model, every_layer(model, "num_experts", [[0]]))


@pytest.mark.parametrize("kind", [*(kind for kind in HEAD_CUTS if "gemma" not in kind and "t5" not in kind)])
def test_residual_channels_that_repeat_others_can_be_cut(kind: str) -> None:
    """With every channel written twice and read once, norms have the same statistics before and after the cut."""
    model = generator(kind, tie_word_embeddings=False)
    half = HIDDEN // 2
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 and "norm" in name and len(weight) == HIDDEN:
                weight[half:] = 0
            elif re.search(r"embed|o_proj|dense|down_proj|fc2", name):
                axis = weight.ndim - (1 if "embed" in name or weight.ndim == 1 else 2)
                weight.narrow(axis, half, half).copy_(weight.narrow(axis, 0, half))
    smaller = sliced(model, Kept(units={"hidden_size": {"": range(half)}}))
    assert difference(model, smaller) < 1e-5
    assert shape_of(smaller) == Shape(**{**shape_of(model).__dict__, "hidden_size": half})


@pytest.mark.parametrize("kind", [kind for kind in HEAD_CUTS if "gemma" in kind or "t5" in kind])
def test_residual_channels_are_cut_in_every_tensor(kind: str) -> None:
    model = generator(kind)
    kept = [*range(0, HIDDEN, 2)]
    smaller = sliced(model, Kept(units={"hidden_size": {"": kept}}))
    whole, state = model.state_dict(), smaller.state_dict()
    for name, tensor in whole.items():
        expected = tensor
        for axis, (before, after) in enumerate(zip(tensor.shape, state[name].shape, strict=True)):
            if before != after:
                expected = expected.index_select(axis, torch.tensor(kept))
        assert torch.equal(state[name], expected), name
    assert logits(smaller).isfinite().all()


def module_list(model: Any, prefix: str) -> nn.ModuleList:
    return model.get_submodule(prefix.removesuffix("."))


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind != "bart"])
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_an_identity_layer_can_be_cut(kind: str, gone: int) -> None:
    """A layer whose weights are zero adds nothing to the residual stream (gpt_neo's lists and T5's bias must follow)."""
    model = generator(kind)
    smaller = model
    for depth, prefix in stacks_of(model).items():
        layers = module_list(model, prefix)
        with torch.no_grad():
            for name, weight in layers[gone].named_parameters():
                weight.mul_(0 if "relative_attention_bias" not in name else 1)
                if "gemma" in kind and "norm" in name:
                    weight.fill_(-1)
        smaller = sliced(smaller, Kept(layers={depth: [layer for layer in range(len(layers)) if layer != gone]}))
    assert difference(model, smaller) < 1e-5
    assert weights(smaller) < weights(model)


@pytest.mark.parametrize("depth", ["num_hidden_layers", "num_encoder_layers"])
def test_a_layer_of_a_post_norm_stack_is_cut_as_if_skipped(depth: str) -> None:
    model = generator("bart")
    smaller = sliced(model, Kept(layers={depth: [0, 2]}))
    del module_list(model, stacks_of(model)[depth])[1]
    assert difference(model, smaller) < 1e-5


def everything(model: Any) -> Kept:
    """A cut in every depth and width that the architecture allows."""
    answers = possible(model)
    shape = shape_of(model)
    units: dict[str, Any] = {}
    for width in CUTTABLE:
        if answers[width] is None:
            count = getattr(shape, width)
            units |= every_layer(model, width, [[*range(count // 2)], [*range(count // 2, count)]]).units
    stacks = stacks_of(model)
    return Kept({depth: range(1, getattr(shape, depth)) for depth in stacks}, units)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_cut_model_saves_loads_and_generates_in_plain_transformers(kind: str, tmp_path: Path) -> None:
    smaller = sliced(generator(kind), everything(generator(kind)))
    smaller.save_pretrained(tmp_path)
    auto = hf.AutoModelForSeq2SeqLM if smaller.config.is_encoder_decoder else hf.AutoModelForCausalLM
    loaded, notes = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(notes.values()), notes
    assert difference(smaller, loaded) < 1e-6
    ids = tokens(loaded, rows=2)
    said = [
        loaded.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert said[0].tolist() == said[1].tolist()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_tied_weights_stay_tied(kind: str) -> None:
    model = generator(kind)
    smaller = sliced(model, everything(model))
    before = {id(weight) for _, weight in model.named_parameters(remove_duplicate=False)}
    after = {id(weight) for _, weight in smaller.named_parameters(remove_duplicate=False)}
    gone = {name for name in model.state_dict() if name not in smaller.state_dict()}
    assert len(after) == len(before) - len(gone)
    assert not {weight.data_ptr() for weight in model.parameters()} & {
        weight.data_ptr() for weight in smaller.parameters()
    }


def test_a_cut_leaves_the_model_its_mode_and_the_random_state_alone() -> None:
    model = generator("llama").to(torch.bfloat16).train()
    before, logits_before = torch.random.get_rng_state(), logits(model)
    smaller = sliced(model, everything(model))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(logits_before, logits(model))
    assert smaller.training
    assert {weight.dtype for weight in smaller.parameters()} == {torch.bfloat16}
    assert smaller.get_buffer("model.rotary_emb.inv_freq").dtype == torch.float32


def test_the_implied_width_of_gpt2_is_found_and_written_down() -> None:
    model = generator("gpt2", n_inner=None)
    assert shape_of(model).intermediate_size == 4 * HIDDEN
    smaller = sliced(model, every_layer(model, "intermediate_size", [[*range(24)]]))
    assert smaller.config.n_inner == 24


def test_each_layer_keeps_its_kind_of_attention() -> None:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    model = generator("gemma2", layer_types=kinds)
    assert sliced(model, Kept(layers={"num_hidden_layers": [1, 2]})).config.layer_types == kinds[1:]


def test_heads_that_share_a_bias_are_the_same_in_every_layer() -> None:
    shared = {}
    for kind in ("t5", "llama"):
        model = generator(kind)
        shared[kind] = {width: probed(model, width, stacks_of(model)).shared for width in CUTTABLE[:3]}
    assert shared["t5"] == {"intermediate_size": False, "num_attention_heads": True, "hidden_size": True}
    assert shared["llama"] == {"intermediate_size": False, "num_attention_heads": False, "hidden_size": True}


def test_gpt_neo_keeps_each_layers_kind_of_attention(tmp_path: Path) -> None:
    smaller = sliced(generator("gpt_neo"), Kept(layers={"num_hidden_layers": [0, 1, 3]}))
    smaller.save_pretrained(tmp_path)
    assert hf.AutoConfig.from_pretrained(tmp_path).attention_layers == ["global", "local", "local"]


def test_unlike_widths_of_two_stacks_are_refused_but_their_layers_are_not() -> None:
    model = generator("bart", encoder_ffn_dim=48)
    reason = possible(model)["intermediate_size"]
    assert reason is not None and "unlike widths {'encoder_ffn_dim': 48, 'decoder_ffn_dim': 64}" in reason
    assert shape_of(sliced(model, Kept(layers={"num_hidden_layers": [1]}))).num_hidden_layers == 1


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([0, WIDTH], "keep some of 0 to 63"),
        ([], "keep some of 0 to 63"),
        ([3, 2], "each once and in order"),
        ([2, 2], "each once and in order"),
    ],
)
def test_units_that_are_not_there_are_refused(kept: list[int], message: str) -> None:
    model = generator("llama")
    with pytest.raises(ModelError, match=message):
        sliced(model, every_layer(model, "intermediate_size", [kept]))


def test_illegal_choices_are_refused() -> None:
    model = generator("llama")
    with pytest.raises(ModelError, match="KV groups must keep equally many heads"):
        sliced(model, every_layer(model, "num_attention_heads", [[0, 1, 2]]))
    with pytest.raises(ModelError, match="every layer must keep as many"):
        sliced(model, every_layer(model, "intermediate_size", [[0, 1], [2]]))
    with pytest.raises(ModelError, match="num_hidden_layers: keep some of 0 to 2"):
        sliced(model, Kept(layers={"num_hidden_layers": [3]}))
    with pytest.raises(ModelError, match="units must be named for model"):
        sliced(model, Kept(units={"intermediate_size": {"model.layers.9": [0]}}))
    with pytest.raises(ModelError, match="has no num_encoder_layers"):
        sliced(model, Kept(layers={"num_encoder_layers": [0]}))
    with pytest.raises(ModelError, match="vocab_size is not a width that can be cut"):
        sliced(model, Kept(units={"vocab_size": {"": [0]}}))
    with pytest.raises(ModelError, match="cannot say that there are fewer heads"):
        sliced(generator("gpt2"), Kept(units={"num_attention_heads": {"": [0]}}))


def test_experts_that_their_kernel_cannot_run_are_refused() -> None:
    model = generator("mixtral")
    with pytest.raises(ModelError, match="intermediate_size 62 beside experts: it must be a multiple of 8"):
        sliced(model, every_layer(model, "intermediate_size", [[*range(62)]]))


def test_legal_numbers_of_heads() -> None:
    start = Shape(3, 0, WIDTH, 12, 4, HIDDEN, 0)
    assert [with_heads(start, heads) for heads in (3, 4, 6, 8, 9, 12)] == [1, 4, 2, 4, 3, 4]
    with pytest.raises(ModelError, match="choose one of 3, 4, 6, 8, 9, 12"):
        with_heads(start, 5)
    assert with_heads(Shape(3, 0, WIDTH, HEADS, HEADS, HIDDEN, 0), 3) == 3


def test_inputs_exceed_the_sliding_window() -> None:
    model = generator("mistral")
    assert inputs(model)["input_ids"].shape[1] > model.config.sliding_window
