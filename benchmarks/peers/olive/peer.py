"""Olive: the teacher through the passes of its BERT example for the CPU: conversion, transformer fusion, quantization."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.peers.served import Job

#: System -> the last pass: dynamic int8, or blocks of 4-bit weights rounded to the nearest (accuracy level 4: computed in int8, the fastest).
QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "olive-int8": {"type": "OnnxDynamicQuantization"},
    "olive-int4": {"type": "OnnxBlockWiseRtnQuantization", "accuracy_level": 4},
}
FILES = ("model.onnx", "model.onnx.data")


def build(job: Job) -> dict[str, float]:
    """Run a workflow a system; seconds of each."""
    seconds = {}
    for name, quantization in QUANTIZATIONS.items():
        start = time.perf_counter()
        _run(job, name, quantization)
        seconds[name] = time.perf_counter() - start
    return seconds


def _run(job: Job, name: str, quantization: dict[str, Any]) -> None:
    from olive.workflows import run

    work = Path(job.out).parent / f"{name}-workflow"
    run(_workflow(job, work, quantization))
    out = Path(job.out) / name
    out.mkdir(parents=True)
    for file in FILES:
        for path in (work / "out").rglob(file):
            shutil.copyfile(path, out / file)
    shutil.copyfile(Path(job.teacher) / "tokenizer.json", out / "tokenizer.json")
    shutil.rmtree(work)


def _workflow(job: Job, work: Path, quantization: dict[str, Any]) -> dict[str, Any]:
    axes = {"0": "batch", "1": "tokens"}
    names = ["input_ids", "attention_mask", "token_type_ids"]
    config = json.loads((Path(job.teacher) / "config.json").read_text(encoding="utf-8"))
    return {
        "input_model": {
            "type": "HfModel",
            "model_path": job.teacher,
            "task": "text-classification",
            "io_config": {
                "input_names": names,
                "input_shapes": [[2, 16]] * 3,
                "input_types": ["int64"] * 3,
                "output_names": ["logits"],
                "dynamic_axes": dict.fromkeys(names, axes) | {"logits": {"0": "batch"}},
            },
        },
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "passes": {
            "conversion": {"type": "OnnxConversion", "target_opset": 17},
            "fusion": {
                "type": "OrtTransformersOptimization",
                "model_type": "bert",
                "num_heads": config["num_attention_heads"],
                "hidden_size": config["hidden_size"],
            },
            "quantization": quantization,
        },
        "host": "local",
        "target": "local",
        "cache_dir": str(work / "cache"),
        "output_dir": str(work / "out"),
    }


def load(folder: Path, job: Job) -> Any:
    """Class probabilities through ONNX Runtime."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(job.max_length)
    tokenizer.enable_padding()

    def answer(texts: list[str]) -> np.ndarray:
        rows = tokenizer.encode_batch(texts)
        given = {
            "input_ids": np.array([row.ids for row in rows], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64),
            "token_type_ids": np.array([row.type_ids for row in rows], dtype=np.int64),
        }
        (logits,) = session.run(["logits"], {name: given[name] for name in names})
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    return answer
