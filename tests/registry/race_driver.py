"""Eight processes do one thing at one moment: `python race_driver.py STORE KIND BUNDLE...` prints JSON lines.

KIND is version, next or alias; or a number: of rounds, each in a store of its own below STORE, first for a version and then
for an alias.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from typing import Any

from slm_registry import Registry, RegistryError


def attempt(store: str, kind: str, bundle: str, number: int, shared: tuple[Any, Any]) -> None:
    barrier, answers = shared
    registry = Registry(store, actor=f"p{number}")
    barrier.wait()
    answers.put(answer_of(registry, kind, bundle, number))


def attempt_often(store: str, rounds: str, bundle: str, number: int, shared: tuple[Any, Any]) -> None:
    barrier, answers = shared
    for turn in range(int(rounds)):
        registry = Registry(f"{store}/{turn}", actor=f"p{number}")
        barrier.wait()
        answers.put({"turn": turn, "kind": "version", **answer_of(registry, "version", bundle, number)})
        if number < 2:
            registry.publish(bundle, "m", version=f"1.0.{number}", lineage={})
        barrier.wait()
        moved = answer_of(registry, "alias", bundle, number % 2)
        answers.put({"turn": turn, "kind": "alias", **moved, "actor": f"p{number}"})


def answer_of(registry: Registry, kind: str, bundle: str, number: int) -> dict[str, Any]:
    try:
        if kind == "alias":
            moved = registry.alias("m", "production", f"1.0.{number}", expected=None)
            answer: dict[str, Any] = {"created": moved}
        else:
            done = registry.publish(bundle, "m", version="2.0.0" if kind == "version" else None, lineage={})
            answer = {"created": done.created, "version": done.version}
    except RegistryError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    return {"actor": f"p{number}", **answer}


def main(store: str, kind: str, bundles: list[str]) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(len(bundles)), context.Queue()
    workers = [
        context.Process(
            target=attempt_often if kind.isdigit() else attempt, args=(store, kind, bundle, number, (barrier, answers))
        )
        for number, bundle in enumerate(bundles)
    ]
    for worker in workers:
        worker.start()
    for _ in range(len(workers) * (2 * int(kind) if kind.isdigit() else 1)):
        print(json.dumps(answers.get(timeout=60)))
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
