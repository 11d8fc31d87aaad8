"""A model with very many versions: what resolving, listing and searching it cost. `python -m benchmarks.registry_scale`.

Writes a log of real entries into a folder store (no blobs: none of the measured calls reads one), then measures through
the public client and through the command line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm_registry import Registry
from slm_registry.log.entries import encode_entry, entry_key
from slm_registry.log.hints import encode_head, encode_index
from slm_registry.log.state import ModelState, next_state, state_digest
from slm_registry.plumbing.hashing import digest_of

MODEL = "support-intents"
STAMP = {"actor": "builder@ci", "at": "2026-01-01T00:00:00+00:00", "reason": "nightly build"}


def main() -> None:
    """Build the store in a temporary folder, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=20, help="class labels that each version records")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sizes = build(Path(folder), options.versions, options.labels)
        built = time.perf_counter() - start
        result = {"versions": options.versions, "labels": options.labels, "build_s": round(built, 1), **sizes}
        print(json.dumps({**result, **measure(folder, options.versions, options.rounds)}, indent=2))


def build(folder: Path, count: int, labels: int) -> dict[str, int]:
    """Write `count` publish entries, two aliases and the hints that the last writer would leave; their sizes in bytes."""
    state, data = ModelState(MODEL), b""
    for number in range(count):
        state, data = _write(folder, state, "publish", _published(number, labels))
    for alias, number in (("production", 0), ("candidate", count - 1)):
        move = {"alias": alias, "version": f"1.{number // 100}.{number % 100}", "expected": None}
        state, data = _write(folder, state, "alias", move)
    head = encode_head(state, data)
    index = encode_index(head, state)
    model = folder / "models" / MODEL
    (model / "head.json").write_bytes(head)
    (model / "index.json").write_bytes(index)
    return {"head_bytes": len(head), "index_bytes": len(index)}


def _published(number: int, labels: int) -> dict[str, Any]:
    facts = {
        "task": "text-classification",
        "metrics": {f"metric_{at}": number * at / 7 for at in range(15)} | {"accuracy": number % 100 / 100},
        "labels": [f"intent_number_{at}" for at in range(labels)],
        "label_count": labels,
        "lineage": {"git": f"{number:040x}", "data": f"{number // 50:064x}", "teacher": "b" * 64},
    }
    version = f"1.{number // 100}.{number % 100}"
    return {"version": version, "manifest": digest_of(version.encode()), "size": 6_000_000 + number, "facts": facts}


def _write(folder: Path, state: ModelState, op: str, details: Mapping[str, Any]) -> tuple[ModelState, bytes]:
    after = next_state(state, op, details, STAMP)
    common = {"model": MODEL, "seq": after.seq, "prev": state.entry, "state": state_digest(after), "nonce": "0"}
    data = encode_entry({**common, "op": op, **STAMP, **details})
    path = folder / entry_key(MODEL, after.seq)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return replace(after, entry=digest_of(data)), data


def measure(url: str, count: int, rounds: int) -> dict[str, Any]:
    """Seconds of each call, the best and the worst of some rounds; a new client for each, and a new process."""
    asked: Mapping[str, Callable[[Registry], Any]] = {
        "resolve_alias": lambda registry: registry.resolve(f"{MODEL}@production"),
        "resolve_newest": lambda registry: registry.resolve(f"{MODEL}@latest"),
        "resolve_range": lambda registry: registry.resolve(f"{MODEL}@>=1.2,<1.50"),
        "list": lambda registry: registry.list(MODEL),
        "search_metric": lambda registry: registry.search(metrics=["accuracy>=0.9"]),
        "search_git": lambda registry: registry.search(git=f"{count // 2:040x}"),
    }
    times = {name: [_seconds(call, Registry(url)) for _ in range(rounds)] for name, call in asked.items()}
    commands = {
        "cli_version": ["--version"],
        "cli_list": ["list", MODEL, "--store", url],
        "cli_list_json": ["list", MODEL, "--store", url, "--json"],
        "cli_search": ["search", "--metric", "accuracy>=0.9", "--store", url],
    }
    for name, words in commands.items():
        command = [sys.executable, "-m", "slm_registry", *words]
        times[name] = [_seconds(_run, command) for _ in range(rounds)]
    return {f"{name}_s": [round(min(found), 4), round(max(found), 4)] for name, found in times.items()}


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _seconds(call: Callable[[Any], Any], argument: Any) -> float:
    start = time.perf_counter()
    call(argument)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
