"""A text-to-text model as two ONNX files: the encoder, run once a text, and the decoder with its cache inside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import ModelError
from pipelines.techniques.cached_decoding import DECODER_FILE, ENCODER_FILE
from pipelines.techniques.tracing import Axes, cached_tensors, growing_cache, save_graph, trace, traceable

#: Sizes of the traced sample: no two alike, none 0 or 1, so that no axis is taken for another or for a constant.
_BATCH, _SOURCE, _LENGTH, _PAST = 2, 7, 4, 3


def export_seq2seq(model: Any, out: Path, max_length: int) -> None:
    """Write encoder_model.onnx and decoder_model.onnx into the folder, with free batch B, text S, length T and past P (0 at first).

    Encoder: input_ids, attention_mask [B, S] int64 -> present.{i}.encoder.key / .value [B, heads, S, size], the decoder's
    attention over the text, computed once. Decoder: input_ids [B, T], encoder_attention_mask [B, S] int64 and
    past_key_values.{i}.encoder.key / .value, past_key_values.{i}.decoder.key / .value [B, heads, P, size] -> logits [B, T, V] and
    present.{i}.decoder.key / .value [B, heads, P + T, size]. The bytes depend on the weights alone.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and max_length > limit:
        raise ModelError(f"max_length {max_length} is beyond the model's context of {limit} tokens; lower max_length")
    twin = traceable(model)
    mask = torch.ones(_BATCH, _SOURCE, dtype=torch.long)
    mask[1, 5:] = 0  # from an unpadded sample the mask would leave the graph
    ids = torch.arange(_BATCH * _SOURCE).reshape(_BATCH, _SOURCE)
    with torch.inference_mode():
        sizes = [(tensor.shape[1], tensor.shape[3]) for tensor in _TextKeys(twin)(ids, mask)]
    text: Axes = {"input_ids": ("batch", "source"), "attention_mask": ("batch", "source")}
    graph = trace(_TextKeys(twin), (ids, mask), text, _axes("present", "encoder", sizes, "source"))
    save_graph(graph, out / ENCODER_FILE)

    cross, own = (tuple(torch.zeros(_BATCH, n, length, d) for n, d in sizes) for length in (_SOURCE, _PAST))
    inputs: Axes = {"input_ids": ("batch", "length"), "encoder_attention_mask": ("batch", "source")}
    inputs |= _axes("past_key_values", "encoder", sizes, "source") | _axes("past_key_values", "decoder", sizes, "past")
    outputs: Axes = {"logits": ("batch", "length", twin.get_output_embeddings().weight.shape[0])}
    outputs |= _axes("present", "decoder", sizes, "total")
    graph = trace(_AnswerStep(twin), (ids[:, :_LENGTH], mask, cross + own), inputs, outputs)
    save_graph(graph, out / DECODER_FILE)


class _TextKeys(nn.Module):  # type: ignore[misc]
    """Keys and values of each decoder layer's attention over the text.

    The decoder itself says how it makes them: it takes one step, of which only they are kept, so the rest leaves the graph.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = torch.zeros_like(ids[:, :1])
        self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=start, past_key_values=cache, use_cache=True)
        return tuple(cached_tensors(cache.cross_attention_cache))


class _AnswerStep(nn.Module):  # type: ignore[misc]
    """One step of the decoder with flat inputs and outputs. `past` is the text's keys and values, then the answer's."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        from transformers.cache_utils import EncoderDecoderCache
        from transformers.modeling_outputs import BaseModelOutput

        half = len(past) // 2
        own = growing_cache(past[half:])
        cache = EncoderDecoderCache(own, growing_cache(past[:half]))
        # only the shape of the encoder's states is looked at: what the decoder needs of them is in the cache
        states = past[0].new_zeros(past[0].shape[0], past[0].shape[2], self.model.config.hidden_size)
        answer = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=ids,
            past_key_values=cache,
            use_cache=True,
        )
        return (answer.logits, *cached_tensors(own))


def _axes(prefix: str, side: str, sizes: list[tuple[int, int]], length: str) -> Axes:
    kinds = ("key", "value")
    return {
        f"{prefix}.{place // 2}.{side}.{kinds[place % 2]}": ("batch", heads, length, size)
        for place, (heads, size) in enumerate(sizes)
    }
