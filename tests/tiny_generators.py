"""Tiny random generators, one an architecture, with real tokenizers trained on a few lines: a few thousand weights each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

LINES = (
    "def add(first, second):",
    "    return first + second",
    "for name in sorted(names):",
    "    print(name, len(name))",
    "import os, sys",
    "if value is None:",
    "    raise ValueError(value)",
    "class Reader(Base):",
    "    def read(self, path):",
    "        with open(path) as file:",
    "            return file.read()",
    "once upon a time there was a small house by the sea",
    "the cat sat on the mat and looked at the moon",
    "naïve café, größer als 10 %: ü, ß and 東京",
)
VOCABULARY = 320
HIDDEN, LAYERS, HEADS, GROUPS, HEAD_SIZE, WIDTH = 32, 3, 4, 2, 8, 64


@cache
def bpe_text() -> str:
    """A byte-level BPE tokenizer as JSON, with one special token that begins, ends and pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|end|>", "<|pad|>"], initial_alphabet=alphabet
    )
    core.train_from_iterator(LINES * 3, trainer)
    return str(core.to_str())


def bpe_tokenizer() -> Any:
    """The tokenizer of the tiny causal models; it pads on the left, as generation wants."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(bpe_text()),
        bos_token="<|end|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        padding_side="left",
        model_max_length=64,
    )


@cache
def unigram_text() -> str:
    """A SentencePiece-like Unigram tokenizer as JSON, that ends every text with </s>, as T5's.

    Its pieces are LINES' words and characters, scored by use: the library's own trainer is not the same twice.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    split = pre_tokenizers.Metaspace()
    words = [word for line in LINES for word, _ in split.pre_tokenize_str(line)]
    uses = Counter(words) + Counter(character for word in words for character in word)
    scored = [(piece, math.log(uses[piece] / uses.total())) for piece in sorted(uses)]
    core = Tokenizer(models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *scored], unk_id=2))
    core.pre_tokenizer = split
    core.decoder = decoders.Metaspace()
    core.add_special_tokens(["<pad>", "</s>", "<unk>"])
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return str(core.to_str())


def unigram_tokenizer() -> Any:
    """The tokenizer of the tiny encoder-decoders."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(unigram_text()),
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=64,
    )


def _old_names(n_inner: str | None = "n_inner") -> dict[str, Any]:
    sizes = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}
    return sizes | ({n_inner: WIDTH} if n_inner else {})


_PLAIN = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": WIDTH,
    "max_position_embeddings": 64,
}
_GROUPED = _PLAIN | {"num_key_value_heads": GROUPS}
_HEADED = _GROUPED | {"head_dim": HEAD_SIZE}
_T5 = {
    "d_model": HIDDEN,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "d_kv": HEAD_SIZE,
    "d_ff": WIDTH,
    "dropout_rate": 0.0,  # two epochs of a tiny model learn less than dropout takes away
}
_BART = {
    "d_model": HIDDEN,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": WIDTH,
    "decoder_ffn_dim": WIDTH,
    "max_position_embeddings": 64,
}

#: Rows of the embedding that no token has, as checkpoints pad theirs. (Qwen2's tokenizer adds a token of its own when it is loaded.)
PADDED = {"qwen2": 8, "phi3": 5}

#: Architecture -> (config class, its sizes). Wide random weights: from the usual 0.02 every logit is near zero.
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", _old_names()),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "hidden_size": HIDDEN,
            "num_layers": 4,
            "num_heads": HEADS,
            "intermediate_size": WIDTH,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 16,
        },
    ),
    "gptj": ("GPTJConfig", _old_names() | {"rotary_dim": 4}),
    "gpt_neox": ("GPTNeoXConfig", _PLAIN | {"rotary_pct": 0.5}),
    "phi": ("PhiConfig", _PLAIN | {"partial_rotary_factor": 0.5}),
    "phi3": ("Phi3Config", _GROUPED),
    "llama": ("LlamaConfig", _HEADED),
    "mistral": ("MistralConfig", _HEADED | {"sliding_window": 16}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", _HEADED),
    "gemma2": ("Gemma2Config", _HEADED | {"sliding_window": 16, "query_pre_attn_scalar": HEAD_SIZE}),
    "gemma3_text": ("Gemma3TextConfig", _HEADED | {"sliding_window": 16, "query_pre_attn_scalar": HEAD_SIZE}),
    "mixtral": ("MixtralConfig", _HEADED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
}
SEQ2SEQ: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5Config", _T5),
    "flan-t5": ("T5Config", _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "bart": ("BartConfig", _BART),
}


def causal_config(kind: str) -> Any:
    """The config of a tiny causal model."""
    import transformers as hf

    name, sizes = CAUSAL[kind]
    tokenizer = bpe_tokenizer()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return getattr(hf, name)(
        **sizes,
        **ids,
        vocab_size=len(tokenizer) + PADDED.get(kind, 0),
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )


def seq2seq_config(kind: str) -> Any:
    """The config of a tiny encoder-decoder."""
    import transformers as hf

    name, sizes = SEQ2SEQ[kind]
    tokenizer = unigram_tokenizer()
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    if name == "BartConfig":
        ids |= {"bos_token_id": 1, "forced_eos_token_id": None}
    # Gated layers multiply: with the wider weights of T5 float32 itself is off by 2e-3 behind them.
    factor = 1.0 if kind == "flan-t5" else 2.0
    wide = {"init_std": 0.3} if name == "BartConfig" else {"initializer_factor": factor}
    return getattr(hf, name)(**sizes, **ids, **wide, vocab_size=len(tokenizer))


def _saved(folder: Path, auto: str, config: Any, tokenizer: Any, seed: int) -> Path:
    import torch
    import transformers as hf

    torch.manual_seed(seed)
    model = getattr(hf, auto).from_config(config)
    _spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _spread(model: Any) -> None:
    """Random vectors too: norms and biases that are all one or zero would hide a mistake in cutting them."""
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)


def tiny_causal(folder: Path, kind: str, seed: int = 0) -> Path:
    """A random causal model with its tokenizer, as a folder."""
    return _saved(folder, "AutoModelForCausalLM", causal_config(kind), bpe_tokenizer(), seed)


def tiny_seq2seq(folder: Path, kind: str, seed: int = 0) -> Path:
    """A random encoder-decoder with its tokenizer, as a folder."""
    return _saved(folder, "AutoModelForSeq2SeqLM", seq2seq_config(kind), unigram_tokenizer(), seed)


#: Architecture -> maker, both kinds.
MAKERS: dict[str, Callable[[Path, str], Path]] = dict.fromkeys(CAUSAL, tiny_causal) | dict.fromkeys(
    SEQ2SEQ, tiny_seq2seq
)
