"""GGUF files of tiny models in a real llama.cpp: it cuts texts and writes as transformers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from pipelines.bundle import Bundle
from pipelines.errors import ModelError
from pipelines.families.llama_cpp import LLAMA_CPP, metadata_of
from pipelines.families.loading import load_model, load_tokenizer
from pipelines.gguf.exporting import export_gguf
from pipelines.gguf.vocabulary import vocabulary_facts
from pipelines.gguf.writing import type_of_tensor
from tests.generators import generator, tokens
from tests.llama_cpp import LlamaCpp, ends, torch_tokens
from tests.tiny_generators import CAUSAL, LINES, bpe_tokenizer

STORIES = Path(__file__).parents[4] / "shared" / "models" / "stories260K"
_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_WINDOW, _WHOLE = "sliding_attention", "full_attention"
#: What configs of these architectures may say beside their sizes.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {}) for kind in LLAMA_CPP},
    "tied": ("llama", {"tie_word_embeddings": True}),
    "untied": ("gpt2", {"tie_word_embeddings": False}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3 rope": ("llama", {"rope_parameters": _LLAMA3}),
    "linear rope": ("qwen3", {"rope_parameters": _ROPE | {"rope_type": "linear", "factor": 4.0}}),
    "narrow window": ("phi3", {"sliding_window": 24}),
    "one after the other": ("gpt_neox", {"use_parallel_residual": False}),
    "two kinds of layers": (
        "gemma3_text",
        {
            "layer_types": [_WINDOW, _WHOLE, _WINDOW],
            "rope_parameters": {
                _WINDOW: _ROPE,
                _WHOLE: {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
            },
        },
    ),
}


def bundle(kind: str, **changes: Any) -> Bundle:
    return Bundle(generator(kind, **changes), bpe_tokenizer(), {})


@pytest.mark.parametrize("name", VARIANTS)
def test_llama_cpp_writes_what_transformers_writes(name: str, tmp_path: Path) -> None:
    kind, changes = VARIANTS[name]
    made = bundle(kind, **changes)
    found = export_gguf(made, tmp_path / "model.gguf", "f32")
    assert set(found["tensors"]) == {"f32"} and found["wider"] == []
    context = found["context_length"]
    assert context == {"mistral": 16, "narrow window": 24}.get(name, 64)
    model = LlamaCpp(tmp_path / "model.gguf", context)
    for seed in range(3):
        ids = tokens(made.model, rows=1, length=6, seed=seed)[0].tolist()
        new = min(28, context - len(ids))
        assert model.greedy(ids, new) == torch_tokens(made.model, ids, new, ends(made.tokenizer))
    for line in LINES:
        assert model.tokens(line) == made.tokenizer(line)["input_ids"]


@pytest.mark.parametrize("kind", sorted(set(CAUSAL) - set(LLAMA_CPP)))
def test_what_llama_cpp_does_not_run_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"architecture '{kind}': no GGUF is written for it; choose one of gemma2"):
        export_gguf(bundle(kind), tmp_path / "model.gguf", "f32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("llama", {"hidden_act": "gelu"}, "activation 'gelu', llama.cpp's llama has 'silu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("phi", {"head_dim": 4}, "4 heads of 4 beside a hidden width of 32"),
        ("qwen2", {"rope_parameters": _LLAMA3}, "rope_type 'llama3' of qwen2"),
        ("gemma2", {"final_logit_softcapping": None}, "final_logit_softcapping is null"),
        ("gemma2", {"query_pre_attn_scalar": 32}, "query_pre_attn_scalar is 32, llama.cpp divides by the root of 8"),
        ("gemma2", {"layer_types": [_WHOLE, _WINDOW, _WINDOW]}, "windows at irregular layers"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        metadata_of(generator(kind, **changes).config)


def test_a_tensor_without_a_place_is_named(tmp_path: Path) -> None:
    import torch

    made = bundle("llama")
    made.model.model.register_buffer("extra_table", torch.zeros(2, 2))
    with pytest.raises(ModelError, match=r"model\.extra_table: llama\.cpp's llama has no place"):
        export_gguf(made, tmp_path / "model.gguf", "f32")


@pytest.mark.parametrize(("wanted", "share"), [("f16", 2**-10), ("q8_0", 1 / 127), ("q4_0", 1 / 7)])
def test_smaller_types_are_near_and_run(wanted: str, share: float, tmp_path: Path) -> None:
    made = bundle("llama", intermediate_size=48)
    paths = [tmp_path / name for name in ("one.gguf", "two.gguf", "exact.gguf")]
    found = [export_gguf(made, path, kind) for path, kind in zip(paths, (wanted, wanted, "f32"), strict=True)]
    assert found[0]["sha256"] == found[1]["sha256"]
    assert found[0]["bytes"] < found[2]["bytes"]
    # A row of 48 cannot be cut into blocks of 32.
    narrow = [f"blk.{layer}.ffn_down.weight" for layer in range(3)]
    assert found[0]["wider"] == (narrow if wanted.startswith("q") else [])
    exact = {tensor.name: tensor.data for tensor in gguf.GGUFReader(paths[2]).tensors}
    for tensor in gguf.GGUFReader(paths[0]).tensors:
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(exact[tensor.name].shape)
        assert tensor.tensor_type.name.lower() == type_of_tensor(tensor.name, value.shape, wanted)
        assert np.abs(value - exact[tensor.name]).max() <= share * np.abs(exact[tensor.name]).max()
    assert len(LlamaCpp(paths[0], 64).greedy([5, 6, 7], 8)) == 8


def test_a_weight_beyond_float16_is_named(tmp_path: Path) -> None:
    made = bundle("llama")
    made.model.model.embed_tokens.weight.data[3, 4] = 1e5
    with pytest.raises(ModelError, match=r"token_embd\.weight: holds 1e\+05, beyond float16; write f32"):
        export_gguf(made, tmp_path / "model.gguf", "f16")


def cutter(*parts: Any) -> Any:
    from tokenizers import pre_tokenizers

    made = bpe_tokenizer()
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(parts))
    return made


def test_the_rule_that_cuts_texts_is_told_or_refused() -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    assert vocabulary_facts(bpe_tokenizer(), 320)["pre"] == "gpt-2"
    assert vocabulary_facts(cutter(digits, words), 320)["pre"] == "smollm"
    with pytest.raises(ModelError, match="cannot be told of the pre_tokenizer"):
        vocabulary_facts(cutter(pre_tokenizers.Split(Regex("[a-c]+"), "isolated"), bytes_alone), 320)
    lower = bpe_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError, match="normalizer 'Lowercase' before byte-level BPE"):
        vocabulary_facts(lower, 320)
    with pytest.raises(ModelError, match="is number 319, the embedding has 300 rows"):
        vocabulary_facts(bpe_tokenizer(), 300)
    from tests.tiny_generators import unigram_tokenizer

    with pytest.raises(ModelError, match="Unigram is not carried over to GGUF"):
        vocabulary_facts(unigram_tokenizer(), 320)


@pytest.mark.skipif(not STORIES.is_dir(), reason="shared/models/stories260K is not here")
@pytest.mark.parametrize("wanted", ["f32", "f16", "q8_0"])
def test_a_real_checkpoint_tells_its_story(wanted: str, tmp_path: Path) -> None:
    made = Bundle(load_model(STORIES, "AutoModelForCausalLM"), load_tokenizer(STORIES), {})
    found = export_gguf(made, tmp_path / "model.gguf", wanted)
    model = LlamaCpp(tmp_path / "model.gguf", 256)
    texts = ["Once upon a time", "Lily had a dog. He was 3 years old!\nShe said: naïve 東京"]
    for text in texts:
        assert model.tokens(text) == made.tokenizer(text)["input_ids"]
    ids = made.tokenizer(texts[0])["input_ids"]
    story, expected = model.greedy(ids, 100), torch_tokens(made.model, ids, 100)
    # Eight bits may choose another word somewhere, after a beginning that is the same.
    same = {"f32": 100, "f16": 100, "q8_0": 40}[wanted]
    assert story[:same] == expected[:same]
    assert (found["wider"] != []) == (wanted == "q8_0")
