"""Eight processes do one thing at one moment: `python race_driver.py STORE KIND BUNDLE...` prints JSON lines."""

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
    try:
        if kind == "alias":
            moved = registry.alias("m", "production", f"1.0.{number}", expected=None)
            answer: dict[str, Any] = {"created": moved}
        else:
            done = registry.publish(bundle, "m", version="2.0.0" if kind == "version" else None, lineage={})
            answer = {"created": done.created, "version": done.version}
    except RegistryError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    answers.put({"actor": f"p{number}", **answer})


def main(store: str, kind: str, bundles: list[str]) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(len(bundles)), context.Queue()
    workers = [
        context.Process(target=attempt, args=(store, kind, bundle, number, (barrier, answers)))
        for number, bundle in enumerate(bundles)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        print(json.dumps(answers.get(timeout=60)))
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
