"""What a process of the factory sets before any library is imported: no telemetry, no hub unless asked for."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def disable_telemetry() -> None:
    """Turn the telemetry of every dependency off, as telemetry.env says; the Makefile exports the same file.

    Must run before the libraries are imported: several read their switch at import.
    """
    for line in (ROOT / "telemetry.env").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        os.environ[key] = value


@contextmanager
def importing() -> Iterator[None]:
    """Import modules without looking for garbage among them, which is up to a quarter of the time: they stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def quiet_libraries() -> None:
    """Silence bars and notices of model libraries: what matters of them, the factory checks and says itself."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
