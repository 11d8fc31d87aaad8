"""NNCF and OpenVINO: the teacher converted, quantized to int8 after training with texts of the training data, run by OpenVINO."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.peers.served import Job

NAME = "openvino-int8"
#: NNCF's own default number of calibration texts.
CALIBRATION_TEXTS = 300


def build(job: Job) -> dict[str, float]:
    """Convert and quantize the teacher as NNCF's guide does for transformers."""
    _decline_telemetry()
    import nncf
    import openvino
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(job.threads)
    start = time.perf_counter()
    out = Path(job.out) / NAME
    out.mkdir(parents=True)
    encode = _encoder(Path(job.teacher), job.max_length)
    model = AutoModelForSequenceClassification.from_pretrained(job.teacher, attn_implementation="eager").eval()
    texts = _spread(job.rows("train")[0])
    sample = {name: torch.from_numpy(array) for name, array in encode(texts[:2]).items()}
    converted = openvino.convert_model(model, example_input=sample)
    calibration = nncf.Dataset([encode([text]) for text in texts])
    small = nncf.quantize(converted, calibration, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(texts))
    openvino.save_model(small, out / "model.xml")
    (out / "tokenizer.json").write_bytes((Path(job.teacher) / "tokenizer.json").read_bytes())
    return {NAME: time.perf_counter() - start}


def _decline_telemetry() -> None:
    """OpenVINO has no switch for it but this file; it is read when openvino is imported, from a home of this process's own."""
    consent = Path.home() / "intel" / "openvino_telemetry"
    consent.parent.mkdir(parents=True, exist_ok=True)
    consent.write_text("0", encoding="utf-8")


def _spread(texts: list[str]) -> list[str]:
    """Texts from the whole of the training data, which may be sorted by class."""
    return texts[:: max(1, len(texts) // CALIBRATION_TEXTS)][:CALIBRATION_TEXTS]


def _encoder(folder: Path, max_length: int) -> Any:
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> dict[str, np.ndarray]:
        rows = tokenizer.encode_batch(texts)
        return {
            "input_ids": np.array([row.ids for row in rows], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64),
            "token_type_ids": np.array([row.type_ids for row in rows], dtype=np.int64),
        }

    return encode


def load(folder: Path, job: Job) -> Any:
    """Class probabilities, compiled for latency."""
    _decline_telemetry()
    import numpy as np
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": job.threads}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    encode = _encoder(folder, job.max_length)
    names = {name for inputs in compiled.inputs for name in inputs.names}

    def answer(texts: list[str]) -> np.ndarray:
        given = {name: array for name, array in encode(texts).items() if name in names}
        logits = compiled(given)[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    return answer
