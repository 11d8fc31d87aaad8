"""The command that writes: generate."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from slm_registry.client import Registry
from slm_registry.errors import UsageError
from slm_registry.plumbing.printable import clean_lines
from slm_registry.runtime.generating import Generator


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the command that writes."""
    generate = commands.add_parser("generate", parents=[common], help="write on from a prompt, or answer a text")
    generate.add_argument("ref")
    generate.add_argument("prompt", help="the text; - reads standard input")
    generate.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="default: 128")
    generate.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (default)")
    generate.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens")
    generate.add_argument("--top-p", type=float, metavar="P", help="draw from the fewest tokens of this probability")
    generate.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1 repeats less")
    generate.add_argument("--seed", type=int, help="the same draws every time")
    generate.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable"
    )
    generate.add_argument("--truncate", action="store_true", help="cut a prompt that is too long")
    generate.add_argument("--threads", type=int, default=1)
    generate.add_argument("--max-length", type=int, help="tokens of prompt and answer together")
    generate.set_defaults(run=_generate, may_be_zero=("temperature",))


def _generate(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    # Any kind of generator will do.
    kind: type[Any] = Generator
    with registry.load(options.ref, options.threads, options.max_length, kind=kind) as model:
        stream = model.stream(
            _prompt(options.prompt),
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            repetition_penalty=options.repetition_penalty,
            seed=options.seed,
            stop=options.stop,
            truncate=options.truncate,
        )
        for piece in stream:
            if not options.json:
                print(clean_lines(piece), end="", flush=True)
    if not options.json:
        print()
        return None, ""
    found = stream.result
    value = {"text": found.text, "finish_reason": found.finish_reason, "prompt_tokens": found.prompt_tokens}
    return {**value, "token_ids": list(found.token_ids)}, ""


def _prompt(given: str) -> str:
    if given != "-":
        return given
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not text: {error}; give UTF-8") from error
