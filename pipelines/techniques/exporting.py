"""ONNX export behind one function, and the hard check that the exported file computes what torch computes."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.bundle import Bundle
from pipelines.errors import ModelError
from pipelines.families.base import Family, TokenIds

#: ONNX operator set of every exported file.
OPSET = 20

#: Texts that parity is checked on.
PARITY_TEXTS = 64


def export_onnx(family: Family, bundle: Bundle, max_length: int, out: Path) -> None:
    """Write a float32 ONNX file with free batch and length: input_ids, attention_mask [B, T] int64 -> logits [B, C].

    The bytes depend on the weights alone: traces of source files and names of this machine are taken out.
    """
    import onnx

    encoded = family.encode(bundle.tokenizer, family.export_texts(), max_length)
    sample = family.collate(bundle.tokenizer, encoded)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=max_length)}
    with warnings.catch_warnings(), quiet("torch.onnx"), unburdened():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated internals
        program = torch.onnx.export(
            family.export_module(bundle.model).eval(),
            (sample["input_ids"], sample["attention_mask"]),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes=(axes, axes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError("the ONNX exporter answered nothing")
    model = program.model_proto
    strip_traces(model)
    onnx.save(model, str(out))


def strip_traces(model: Any) -> None:
    """Remove doc strings, metadata and intermediate shapes: they hold file names, and stale shapes break quantization."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")
    graph.ClearField("value_info")
    graph.ClearField("metadata_props")


def open_session(path: Path, threads: int) -> Any:
    """An onnxruntime session on the CPU. Raises ModelError where the file does not load."""
    import onnxruntime
    from slm_registry.runtime.parts import session_options

    try:
        return onnxruntime.InferenceSession(str(path), session_options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own, undocumented exception types
        raise ModelError(f"{path}: onnxruntime cannot load this file: {str(error).splitlines()[0]}") from error


def onnx_logits(session: Any, family: Family, tokenizer: Any, rows: Sequence[TokenIds]) -> np.ndarray:
    """Logits of one padded batch from the exported file: [len(rows), C]."""
    inputs = family.collate(tokenizer, rows)
    feed = {item.name: inputs[item.name].numpy() for item in session.get_inputs()}
    logits: np.ndarray = session.run(["logits"], feed)[0]
    return logits


def check_parity(
    path: Path, family: Family, bundle: Bundle, texts: Sequence[str], max_length: int, tolerance: float
) -> float:
    """Largest |exported - torch| logit over a padded batch and over single, unpadded texts.

    Raises ModelError, naming the text, where it exceeds the tolerance or an input has left the graph.
    """
    session = open_session(path, threads=1)
    names = sorted(item.name for item in session.get_inputs())
    if names != ["attention_mask", "input_ids"]:
        raise ModelError(
            f"{path}: the exported graph takes {names}, not input_ids and attention_mask: padded batches would be wrong"
        )
    rows = family.encode(bundle.tokenizer, texts, max_length)
    worst = 0.0
    for batch in [rows, *([row] for row in rows)]:
        with torch.inference_mode():
            expected = family.forward(bundle.model, family.collate(bundle.tokenizer, batch)).logits.numpy()
        difference = np.abs(onnx_logits(session, family, bundle.tokenizer, batch) - expected).max(axis=1)
        worst = max(worst, float(difference.max()))
        if not difference.max() <= tolerance:
            text = texts[int(difference.argmax())] if len(batch) > 1 else bundle.tokenizer.decode(batch[0])
            kind = "padded" if len(batch) > 1 else "unpadded"
            raise ModelError(
                f"{path}: exported logits differ from torch by {difference.max():.2e} ({kind}, text {text[:60]!r}), "
                f"quantize.parity allows {tolerance:.0e}; do not publish this file"
            )
    return worst


@contextmanager
def unburdened() -> Iterator[None]:
    """Trace without noting for each node where in the source it comes from, which strip_traces takes out again, and without looking for
    garbage among millions of nodes in use, a seventh of the time; what there is of it is collected when it is over."""
    import torch.fx.config as settings

    traces, collecting = settings.do_not_emit_stack_traces, gc.isenabled()
    settings.do_not_emit_stack_traces = True
    gc.disable()
    try:
        yield
    finally:
        settings.do_not_emit_stack_traces = traces
        if collecting:
            gc.enable()


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silence one logger below errors while a noisy library works."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
