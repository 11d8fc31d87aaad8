"""The command that times bundles on the machine where it runs: measure."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from slm_registry.bundles.facts import task_of
from slm_registry.bundles.packed import texts_of, unpack
from slm_registry.commands.tables import table
from slm_registry.errors import CorruptError, RegistryError, UsageError
from slm_registry.plumbing.files import open_regular, os_errors
from slm_registry.plumbing.printable import size_text
from slm_registry.runtime import timing
from slm_registry.runtime.arguments import at_least_one
from slm_registry.runtime.generating import Generator
from slm_registry.runtime.loading import load_folder
from slm_registry.runtime.machine import this_machine
from slm_registry.runtime.parts import read_json
from slm_registry.runtime.text_classification import TextClassifier
from slm_registry.runtime.token_classification import TokenClassifier

_WRITE = ("text-generation", "text-to-text")


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "measure", parents=[common], help="time models of one task side by side on this machine"
    )
    parser.add_argument("folders", nargs="*", metavar="folder", help="a bundle's folder; all are loaded at once")
    parser.add_argument("--texts", metavar="FILE", help="a text a line, or a JSON list of texts (.json)")
    parser.add_argument("--stdin", action="store_true", help="bundles and texts come as a tar on standard input")
    parser.add_argument("--machine", action="store_true", help="time nothing, only say what machine this is")
    parser.add_argument("--threads", type=int, default=1, help="threads of one call (default: 1)")
    parser.add_argument(
        "--rounds", type=int, default=400, metavar="N", help="texts timed one by one, then in batches (default: 400)"
    )
    parser.add_argument(
        "--new-tokens",
        type=int,
        default=32,
        metavar="N",
        help="tokens written after or in answer to a text, by models that write (default: 32)",
    )
    parser.set_defaults(run_alone=_measure)


def _measure(options: argparse.Namespace) -> tuple[Any, str]:
    if options.machine:
        return _of_machine(options)
    at_least_one("--threads", options.threads)
    at_least_one("--new-tokens", options.new_tokens)
    if options.rounds < timing.STRETCHES:
        raise UsageError(f"--rounds is {options.rounds}; the median's interval needs {timing.STRETCHES} or more")
    if options.stdin:
        return _of_stdin(options)
    if not options.folders or options.texts is None:
        raise UsageError("give a bundle's folder or more and --texts FILE, or --stdin alone")
    folders = [Path(folder) for folder in options.folders]
    return _report(folders, options.folders, _read_texts(Path(options.texts)), options)


def _of_machine(options: argparse.Namespace) -> tuple[Any, str]:
    if options.folders or options.texts is not None or options.stdin:
        raise UsageError("--machine times nothing; leave folders, --texts and --stdin out")
    machine = this_machine()
    return {"machine": asdict(machine)}, str(machine)


def _of_stdin(options: argparse.Namespace) -> tuple[Any, str]:
    if options.folders or options.texts is not None:
        raise UsageError("with --stdin folders and texts come on standard input; leave the others out")
    with _ended_in_order(), tempfile.TemporaryDirectory(prefix="slm-registry-measure-") as folder:
        folders, texts = unpack(sys.stdin.buffer, Path(folder))
        return _report(folders, [folder.name for folder in folders], texts, options)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP leave no files behind either."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _read_texts(path: Path) -> list[str]:
    with os_errors("read", path), open_regular(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8")
        value = json.loads(text) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise CorruptError(f"{path}: {error}; give UTF-8, a text a line, or a JSON list (.json)") from error
    return texts_of(value, str(path))


def _report(
    folders: Sequence[Path], names: Sequence[str], texts: list[str], options: argparse.Namespace
) -> tuple[Any, str]:
    piece = _piece(folders)
    try:
        load = partial(_answer, new_tokens=options.new_tokens)
        found = timing.measure(load, folders, texts, options.threads, options.rounds)
    except BrokenExecutor as error:
        raise RegistryError(
            "the process that loads a model to see its memory was ended from outside; is there enough memory?"
        ) from error
    machine = this_machine()
    rows = [{"folder": name, **asdict(times)} for name, times in zip(names, found, strict=True)]
    value = {"machine": asdict(machine), "threads": options.threads, "rounds": options.rounds, "folders": rows}
    heads = ("folder", f"p50 ms a {piece}", "95 % interval", "p95 ms", f"{piece}s/s", "peak memory")
    cells = [_cells(name, times) for name, times in zip(names, found, strict=True)]
    return value | {"piece": piece}, f"{table(heads, cells)}\n{machine}"


def _piece(folders: Sequence[Path]) -> str:
    """What is timed a piece. Raises UsageError where the models are of several tasks: their times cannot be ranked."""
    tasks = {folder: task_of(read_json(folder / "config.json").get("architectures")) for folder in folders}
    (first, task), *others = tasks.items()
    for folder, other in others:
        if other != task:
            raise UsageError(f"{first} is for {task}, {folder} for {other}; measure those of one task at a time")
    return "token" if task in _WRITE else "text"


def _cells(name: str, times: timing.Times) -> tuple[str, ...]:
    interval = f"{times.p50_low:.3f} to {times.p50_high:.3f}"
    speed = (f"{times.p50_ms:.3f}", interval, f"{times.p95_ms:.3f}", f"{times.per_s:.0f}")
    return (name, *speed, size_text(times.peak_memory_bytes))


def _answer(folder: Path, threads: int, new_tokens: int) -> timing.Answer:
    model = load_folder(folder, threads=threads, batch_size=timing.THROUGHPUT_BATCH)
    if isinstance(model, Generator):
        return partial(_write, model, new_tokens=new_tokens)
    if isinstance(model, TokenClassifier):
        return model.predict
    assert isinstance(model, TextClassifier)
    return model.predict_proba


def _write(model: Generator, texts: list[str], new_tokens: int) -> timing.Tokens:
    """An end token is a step of work too, though it is not among the tokens."""
    answers = model.generate(texts, max_new_tokens=new_tokens, truncate=True)
    return timing.Tokens(sum(len(one.token_ids) + (one.finish_reason == "end") for one in answers))
