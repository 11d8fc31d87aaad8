"""`make bench-generation`: how fast an exported model writes, slm_registry against transformers' generate on the CPU, same weights.

A Llama of random weights (speed does not depend on them), greedy, batch 1, no end token: text in, text out on every side, all in turns in
one run. The float32 export must write transformers' tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from slm_registry.runtime.timing import peak_memory

from benchmarks.pages import load, machine, write_section
from pipelines.environment import disable_telemetry, quiet_libraries
from pipelines.techniques.writing_speed import Run, Writer, Written, speed, writing_runs

SIZES: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
MAX_LENGTH, PARITY = 256, 1e-3
_FOUR = {
    "technique": "blockwise",
    "parity": PARITY,
    "bits": 4,
    "head_bits": 4,
    "embedding_bits": None,
    "block_size": 32,
}
_FOUR |= {"symmetric": True, "accuracy_level": 4, "rounding": "nearest", "calibration_rows": 1}
#: Side -> the recipe's `quantize`.
EXPORTS: dict[str, dict[str, Any]] = {
    "slm_registry, float32": {"technique": "none", "parity": PARITY},
    "slm_registry, int8": {"technique": "dynamic_int8", "parity": PARITY, "per_channel": True, "embeddings": None},
    "slm_registry, int4": _FOUR,
}
RIVALS = {"transformers, float32": "float32", "transformers, bfloat16": "bfloat16"}


@dataclass(frozen=True)
class Measured:
    """One side: its runs, the bytes of a user's download, the peak memory of a process that only writes."""

    name: str
    runs: list[Run]
    bytes: int
    memory: int

    @property
    def rate(self) -> float:
        """New tokens a second from prompt to last token, the median of the runs."""
        return float(np.median([run.tokens / run.whole for run in self.runs]))


def make_model(folder: Path, sizes: dict[str, Any]) -> int:
    """Save a random Llama and a tokenizer of whole words; the number of its weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(17)
    config = LlamaConfig(**sizes, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = LlamaForCausalLM(config).eval()
    words = {f"w{number}": number for number in range(sizes["vocab_size"])}
    core = Tokenizer(models.WordLevel(words, unk_token="w0"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.WhitespaceSplit(), decoders.Fuse()
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="w0", pad_token="w0").save_pretrained(folder)
    return int(sum(weight.numel() for weight in model.parameters()))


def export_all(source: Path, out: Path, prompt: Sequence[int]) -> dict[str, Path]:
    """The factory's exports of a folder by side, each held against torch. Raises ModelError where one differs."""
    from pipelines.bundle import Bundle
    from pipelines.config import RECIPES, Task
    from pipelines.families.causal import CausalModel
    from pipelines.families.loading import load_model, load_tokenizer
    from pipelines.families.sequences import Example
    from pipelines.sequences.exporting import shrink

    family, folders = CausalModel(), {}
    bundle = Bundle(load_model(source, family.auto), load_tokenizer(source), {})
    task = Task(type="text-generation", seed=17, max_length=MAX_LENGTH, threads=1)
    examples = [Example(list(prompt), range(len(prompt) - 1), list(prompt[1:]))]
    whole = out / "whole"
    whole.mkdir(parents=True)
    names = family.export(bundle, whole, MAX_LENGTH)
    family.check_export(bundle, whole, examples, PARITY)
    kind: Any = RECIPES["text-generation"].model_fields["quantize"]
    for number, (side, quantize) in enumerate(sorted(EXPORTS.items(), key=lambda item: item[1]["technique"] == "none")):
        folder = out / str(number)
        folder.mkdir()
        wanted = checked(kind, quantize)
        shrink(family, bundle, whole, names, folder, examples, task, wanted)
        bundle.model.config.save_pretrained(folder)
        bundle.model.generation_config.save_pretrained(folder)
        bundle.tokenizer.save_pretrained(folder)
        folders[side] = folder
    return {side: folders[side] for side in EXPORTS}


def checked(field: Any, value: dict[str, Any]) -> Any:
    """A section of a recipe, checked."""
    from pydantic import TypeAdapter

    return TypeAdapter(field.annotation).validate_python(value)


def ours(folder: Path, threads: int) -> Writer:
    """slm_registry, as a downstream team calls it."""
    from slm_registry import TextGenerator

    return partial(_ours, TextGenerator.from_folder(folder, threads=threads))


def _ours(model: Any, texts: list[str], new_tokens: int) -> list[Written]:
    return [Written(one.text, len(one.token_ids)) for one in model.generate(texts, max_new_tokens=new_tokens)]


def theirs(folder: Path, threads: int, *, dtype: str) -> Writer:
    """transformers, as its documentation calls it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    return partial(_theirs, model, AutoTokenizer.from_pretrained(folder))


def _theirs(model: Any, tokenizer: Any, texts: list[str], new_tokens: int) -> list[Written]:
    import torch

    with torch.inference_mode():
        asked = tokenizer(texts, return_tensors="pt", return_token_type_ids=False)
        answers = model.generate(**asked, do_sample=False, max_new_tokens=new_tokens)[:, asked["input_ids"].shape[1] :]
    return [
        Written(text, answers.shape[1]) for text in tokenizer.batch_decode(answers, clean_up_tokenization_spaces=False)
    ]


def first_answer(load_side: Any, new_tokens: int, folder: Path, threads: int) -> Any:
    """What peak_memory's process does: load and answer."""
    return partial(load_side(folder, threads), new_tokens=new_tokens)


def measure(
    work: Path, sizes: dict[str, Any], prompt_tokens: int, new_tokens: int, rounds: int, threads: int
) -> tuple[int, list[Measured]]:
    """The model's weights, and every side measured in turns. Raises SystemExit where the float32 export writes other tokens."""
    from pipelines.bundle import download_bytes

    source = work / "model"
    weights = make_model(source, sizes)
    rng = np.random.default_rng(17)
    rows = rng.integers(1, sizes["vocab_size"], (rounds, prompt_tokens))
    prompts = [" ".join(f"w{token}" for token in row) for row in rows]
    folders = export_all(source, work / "exported", rows[0].tolist())
    loaders: dict[str, tuple[Any, Path]] = {side: (ours, folder) for side, folder in folders.items()}
    loaders |= {side: (partial(theirs, dtype=dtype), source) for side, dtype in RIVALS.items()}
    writers = {side: load_side(folder, threads) for side, (load_side, folder) in loaders.items()}
    _same_tokens(writers["slm_registry, float32"], writers["transformers, float32"], prompts, new_tokens)
    runs = writing_runs(list(writers.values()), prompts, new_tokens, rounds)
    short = [run for side in runs for run in side if run.tokens != new_tokens]
    if short:
        raise SystemExit(f"a side wrote {short[0].tokens} tokens instead of {new_tokens}: the rates would not compare")
    found = []
    for (side, (load_side, folder)), timed in zip(loaders.items(), runs, strict=True):
        memory = peak_memory(partial(first_answer, load_side, new_tokens), folder, threads, prompts[:1])
        found.append(Measured(side, timed, download_bytes(folder), memory))
    return weights, found


def _same_tokens(one: Writer, other: Writer, prompts: list[str], new_tokens: int) -> None:
    for prompt in prompts[:2]:
        texts = [write([prompt], new_tokens)[0].text.replace(" ", "") for write in (one, other)]
        if texts[0] != texts[1]:
            raise SystemExit("the float32 export and transformers write different tokens: the sides do not compare")


def table(weights: int, rows: Sequence[Measured], conditions: str) -> str:
    """The section as Markdown."""
    rival = next(row for row in rows if row.name == "transformers, float32")
    lines = [
        "# Writing: the exported model against transformers",
        "",
        f"{machine()}; {conditions}.",
        f"Written by `make bench-generation`: a Llama of {weights / 1e6:.1f} M random weights, greedy, batch 1, text in and text out; medians of turns in alternating order.",
        "*Faster* is new tokens a second from prompt to last token over transformers in float32. Memory is the peak of a process that loads and answers one prompt.",
        "",
        "| side | tokens/s | faster | first token, ms | tokens/s after it | MB | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        after = speed(row.runs)
        lines.append(
            f"| {row.name} | {row.rate:.1f} | {row.rate / rival.rate:.2f}x | {after.first_token_ms:.1f} | "
            f"{after.tokens_per_s:.1f} | {row.bytes / 1e6:.1f} | {row.memory / 1e6:.0f} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Build, measure, write the section."""
    disable_telemetry()
    quiet_libraries()
    import tempfile

    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--page", type=Path, required=True, help="the page that the table goes to")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens that are written")
    given = parser.parse_args(argv)
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        weights, rows = measure(Path(folder), SIZES, given.prompt, given.new, given.rounds, given.threads)
    conditions = f"{given.threads} threads a side, prompt {given.prompt} + {given.new} new tokens, {given.rounds} rounds, {before} at the start"
    text = table(weights, rows, conditions)
    write_section(given.page, "generation", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
