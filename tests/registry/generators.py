"""Tiny models without torch: one that recites a text, one that tags words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tests.registry.helpers import make_bundle

END = 256
POSITIONS = 64
STORY = "Once upon a time 東京 was großartig. The end 🦆 of it."


def byte_tokenizer() -> Tokenizer:
    """A token a byte, and one that ends a text (256)."""
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: index for index, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


def make_reciter(folder: Path, text: str = STORY, *, positions: int = POSITIONS, **settings: Any) -> Path:
    """A causal model that knows one text by heart: after n tokens of whatever it writes the text's byte n, n + 1, ...

    The text is cut to, or followed by ends of text up to, so many positions. It goes by position_ids alone, and fails
    where attention_mask or its cache do not fit what it has read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 257,
        "eos_token_id": END,
        "max_position_embeddings": positions,
        **settings,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(str(folder / "tokenizer.json"))
    script = [*tokenizer.encode(text).ids, *[END] * positions][: positions + 1]
    onnx.save(_reciter(script), str(folder / "model.onnx"))
    return folder


def _reciter(script: list[int]) -> onnx.ModelProto:
    table = np.full((len(script) - 1, END + 1), -10, np.float32)
    table[np.arange(len(script) - 1), script[1:]] = 10
    nodes = [
        helper.make_node("Gather", ["table", "position_ids"], ["known"], axis=0),
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "ends"], ["fresh"]),
        helper.make_node("Concat", ["past_key_values.0.key", "fresh"], ["present.0.key"], axis=2),
        helper.make_node("Concat", ["past_key_values.0.value", "fresh"], ["present.0.value"], axis=2),
        # Of unlike length these two cannot be added.
        helper.make_node("Cast", ["attention_mask"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("Squeeze", ["present.0.key", "ends"], ["read"]),
        helper.make_node("Add", ["seen", "read"], ["both"]),
        helper.make_node("ReduceMean", ["both"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["known", "nothing"], ["logits"]),
    ]
    ids = {"input_ids": "length", "attention_mask": "total", "position_ids": "length"}
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", axis]) for name, axis in ids.items()]
    past, present = (
        [
            helper.make_tensor_value_info(f"{prefix}.0.{kind}", TensorProto.FLOAT, ["batch", 1, axis, 1])
            for kind in ("key", "value")
        ]
        for prefix, axis in (("past_key_values", "past"), ("present", "total"))
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", END + 1])
    constants = {
        "table": table,
        "ends": np.array([1, 3], np.int64),
        "zero": np.array(0, np.float32),
    }
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "reciter", [*values, *past], [logits, *present], weights)
    return _checked(graph)


TAGS = ("O", "B-PER", "I-PER", "B-LOC", "X")
WORDS = {"ada": "B-PER", "lovelace": "I-PER", "london": "B-LOC", "grace": "B-PER", "verb": "X"}


def make_tagger(folder: Path, *, positions: int = 12) -> Path:
    """A tagger that knows some words by heart. Its tokens are words; every letter of an unknown one is a token."""
    make_bundle(folder, architecture="BertForTokenClassification")
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {str(at): tag for at, tag in enumerate(TAGS)}, "max_position_embeddings": positions}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text("{}")
    tokenizer = Tokenizer.from_str(json.dumps(_word_tokenizer()))
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.zeros((tokenizer.get_vocab_size(), len(TAGS)), np.float32)
    for word, number in tokenizer.get_vocab().items():
        table[number, TAGS.index(WORDS.get(word, "O"))] = 4
    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", len(TAGS)])
    node = helper.make_node("Gather", ["table", "input_ids"], ["logits"], axis=0)
    graph = helper.make_graph([node], "tagger", [ids, mask], [logits], [numpy_helper.from_array(table, "table")])
    onnx.save(_checked(graph), str(folder / "model.onnx"))
    return folder


def _word_tokenizer() -> dict[str, Any]:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *"abcdefghijklmnopqrstuvwxyz.,'"]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz.,'"]
    special = [
        {"id": at, "content": pieces[at], "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for at in range(4)
    ]
    ends = {name: {"id": name, "ids": [at], "tokens": [name]} for at, name in ((2, "[CLS]"), (3, "[SEP]"))}
    template = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template.append({"SpecialToken": {"id": "[SEP]", "type_id": 0}})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {"type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": ends},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: at for at, piece in enumerate(pieces)},
        },
    }


def _checked(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def with_ends(folder: Path, into: Path, ends: list[int]) -> Path:
    """A copy whose generation_config.json names these end tokens."""
    shutil.copytree(folder, into)
    (into / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return into


def torch_greedy(
    model: Any, rows: list[list[int]], new_tokens: int, ends: list[int] | None, *, left: bool
) -> list[list[int]]:
    """What transformers' generate() answers to rows in one padded batch: new tokens up to the first end."""
    import torch
    from transformers import GenerationConfig

    width = max(map(len, rows))
    gaps = [[0] * (width - len(row)) for row in rows]
    ids = [gap + row if left else row + gap for gap, row in zip(gaps, rows, strict=True)]
    mask = [gap + [1] * len(row) if left else [1] * len(row) + gap for gap, row in zip(gaps, rows, strict=True)]
    start = getattr(model.generation_config, "decoder_start_token_id", None)
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=new_tokens, eos_token_id=ends, pad_token_id=0, decoder_start_token_id=start
    )
    with torch.inference_mode():
        found = model.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), generation_config=settings)
    answers = found[:, width if left else 1 :].tolist()
    return [_until(answer, ends or []) for answer in answers]


def _until(tokens: list[int], ends: list[int]) -> list[int]:
    stop = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]
