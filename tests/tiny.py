"""Tiny random models and a tiny corpus: real files, small enough for every test."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

TOPICS = {
    "parcel": ("where is my parcel", "parcel not here", "track the parcel please", "the parcel is late"),
    "refund": ("give me the refund", "refund my money", "money back now", "when is my refund"),
    "login": ("i cannot log in", "password is wrong", "reset the password", "my login fails"),
}
TAILS = ("today", "please", "again", "thanks", "now", "ok", "hello", "friend")


def tiny_rows() -> list[tuple[str, str]]:
    """96 labelled texts of three easy topics."""
    return [(f"{text} {tail}", label) for label, texts in TOPICS.items() for text in texts for tail in TAILS]


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A text,label file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def tiny_tokenizer(max_length: int = 32) -> Any:
    """A WordPiece tokenizer over the tiny corpus, with words in it that the corpus never uses."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text, _ in tiny_rows() for word in text.split()})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
        *words,
        "zebra",
        "quartz",
        "##ing",
    ]
    core = Tokenizer(
        models.WordPiece({token: index for index, token in enumerate(dict.fromkeys(tokens))}, unk_token="[UNK]")
    )
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
    )


def tiny_config(kind: str, vocab_size: int) -> Any:
    """A config of a few thousand weights for an architecture."""
    import transformers as hf

    # Wide random weights: from the usual 0.02 so small a model learns nothing in a few steps.
    common = {"vocab_size": vocab_size, "pad_token_id": 0, "max_position_embeddings": 64, "initializer_range": 0.2}
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    ends = {"bos_token_id": 2, "eos_token_id": 3}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "distilbert": (hf.DistilBertConfig, {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}),
        "bert": (hf.BertConfig, sizes),
        "roberta": (hf.RobertaConfig, sizes | ends),
        "mobilebert": (
            hf.MobileBertConfig,
            sizes
            | {
                "embedding_size": 32,
                "intra_bottleneck_size": 32,
                "true_hidden_size": 32,
                "num_feedforward_networks": 2,
            },
        ),
        "deberta-v2": (
            hf.DebertaV2Config,
            sizes
            | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}
            | {"position_buckets": 8, "max_relative_positions": -1, "norm_rel_ebd": "layer_norm"}
            | {"position_biased_input": False},
        ),
        # A window of two words either way: shorter than the texts, so that it shows.
        "modernbert": (
            hf.ModernBertConfig,
            sizes
            | ends
            | {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 4, "global_attn_every_n_layers": 3},
        ),
        "eurobert": (hf.EuroBertConfig, sizes | ends | {"mask_token_id": 4, "num_key_value_heads": 2}),
    }
    config, own = kinds[kind]
    return config(**common, **own)


def tiny_model(folder: Path, kind: str = "bert", seed: int = 0) -> Path:
    """A random pretrained body with its tokenizer, as a folder."""
    from transformers import AutoModel

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    AutoModel.from_config(tiny_config(kind, len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
