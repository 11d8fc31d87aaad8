"""Hypothesis drives the registry and a dictionary side by side, on a folder and on a bucket."""

from __future__ import annotations

import uuid
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from slm_registry import open_store

from tests.registry.machine import RegistryMachine, make_contents

# The soak runs many more: python -m tests.registry.soak.
EXAMPLES = 8


def test_the_registry_is_a_dictionary(url: str, tmp_path: Path) -> None:
    contents = make_contents(tmp_path / "contents")
    base, mark, query = url.partition("?")

    def fresh() -> RegistryMachine:
        name = uuid.uuid4().hex
        return RegistryMachine(open_store(f"{base}/{name}{mark}{query}"), contents, tmp_path / "caches" / name)

    run_state_machine_as_test(
        fresh,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=15,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
