"""Runs `slm-registry` in the tests' own process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from slm_registry.cli import main


class Cli:
    """Runs commands in this process against one store."""

    def __init__(self, store: str, capture: pytest.CaptureFixture[str]) -> None:
        self.store, self.capture = store, capture

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self.capture.readouterr()
        assert main([*arguments, "--store", self.store]) == code
        found = self.capture.readouterr()
        self.error = found.err
        assert bool(found.err) == bool(code)
        assert found.err.count("\n") == (1 if code else 0)
        return found.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))
