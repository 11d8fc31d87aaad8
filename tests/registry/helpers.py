"""A tiny real bundle, and where the repository is."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = ("delivery", "refund", "other")
VOCABULARY = ("[PAD]", "[UNK]", "parcel", "arrive", "money", "back", "hello", "where", "is", "my")
# Which label a token speaks for, and how loudly.
EVIDENCE = {"parcel": (0, 3.0), "arrive": (0, 2.0), "money": (1, 3.0), "back": (1, 2.0), "hello": (2, 3.0)}


def make_bundle(
    folder: Path, *, weight: float = 1.0, architecture: str = "BertForSequenceClassification", ballast: int = 0
) -> Path:
    """A bundle of a few kilobytes whose model adds up what its words speak for. `weight` makes other bytes of it.

    `ballast` adds so many weights of four bytes that change nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": [architecture],
        "model_type": "bert",
        "id2label": {str(index): label for index, label in enumerate(LABELS)},
        "label2id": {label: index for index, label in enumerate(LABELS)},
        "pad_token_id": 0,
        "max_position_embeddings": 16,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 12, "pad_token": "[PAD]"}))
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("# A tiny classifier\n")
    onnx.save(_tiny_model(weight, ballast), str(folder / "model.onnx"))
    return folder


def make_tokenizer_panic(folder: Path) -> None:
    """Let a bundle's tokenizer load, and panic in its Rust code over any text: an error that is no Exception."""
    path = folder / "tokenizer.json"
    table = base64.b64encode(struct.pack("<II", 4, 0xFFFFFBFF) + b"abc").decode()
    normalizer = {"type": "Precompiled", "precompiled_charsmap": table}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": normalizer}))


def _tiny_model(weight: float, ballast: int) -> onnx.ModelProto:
    # Rows below the vocabulary's are never looked up.
    table = np.zeros((len(VOCABULARY) + ballast // len(LABELS), len(LABELS)), dtype=np.float32)
    for word, (label, strength) in EVIDENCE.items():
        table[VOCABULARY.index(word), label] = strength * weight
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], axis=0),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "middle"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
