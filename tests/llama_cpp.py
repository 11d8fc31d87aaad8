"""A GGUF file in a real llama.cpp, for tests: the package xllamacpp holds its server, on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import xllamacpp


class LlamaCpp:
    """A loaded file, in exact arithmetic: float32 cache, no flash attention, one thread."""

    def __init__(self, path: Path, context: int) -> None:
        asked = xllamacpp.CommonParams()
        asked.model.path = str(path)
        asked.n_ctx, asked.n_parallel, asked.warmup, asked.fit_params, asked.verbosity = context, 1, False, False, 0
        asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
        asked.cache_type_k = asked.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        asked.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(asked)

    def greedy(self, ids: list[int], new_tokens: int) -> list[int]:
        """The likeliest tokens after these, the end token included."""
        asked = {"prompt": ids, "n_predict": new_tokens, "temperature": 0, "return_tokens": True, "verbose": True}
        found: list[int] = self._server.handle_completions(asked)["__verbose"]["tokens"]
        return found

    def tokens(self, text: str) -> list[int]:
        """A text as llama.cpp cuts it, with what stands around every text."""
        body = json.dumps({"content": text, "add_special": True, "parse_special": False}).encode()
        address = f"{self._server.listening_address}/tokenize"
        with urlopen(Request(address, body, {"Content-Type": "application/json"}), timeout=30) as answer:
            found: list[int] = json.load(answer)["tokens"]
        return found


def ends(tokenizer: Any) -> list[int]:
    """Where llama.cpp ends a text: at the tokenizer's end token, and at a token whose text it knows for an end."""
    known = tokenizer.get_vocab().get("<|endoftext|>", tokenizer.eos_token_id)
    return sorted({tokenizer.eos_token_id, known})


def torch_tokens(model: Any, ids: list[int], new_tokens: int, ends: list[int] | None = None) -> list[int]:
    """The same of plain transformers, up to the model's own end token or to one of these."""
    import torch

    asked = {} if ends is None else {"eos_token_id": ends}
    with torch.inference_mode():
        found = model.generate(torch.tensor([ids]), max_new_tokens=new_tokens, do_sample=False, **asked)[0, len(ids) :]
    written: list[int] = found.tolist()
    return written
