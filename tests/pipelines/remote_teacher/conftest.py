"""A project with a prompt, an endpoint on loopback, and a clock that does not wait."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import ApiTeacher
from pipelines.remote_teacher.patience import Clock
from tests.openai_server import KEY, MODEL, PREFIX, OpenAIServer, openai_server
from tests.sequence_recipes import SEQUENCE_TRAINING

PROMPT = f"{PREFIX}{{text}}"
SETTINGS: dict[str, Any] = {
    "mode": "api",
    "url": "https://models.example/v1",
    "endpoint": "chat",
    "model": MODEL,
    "served_as": None,
    "prompt_file": "prompts/back.txt",
    "prompt_sha256": hashlib.sha256(PROMPT.encode()).hexdigest(),
    "sampling": {"temperature": 0.7, "top_p": 0.9, "max_tokens": 50, "answers": 1},
    "empty": "drop",
    "cut": "drop",
    "price": {"input": 1.0, "output": 2.0},
    "max_cost": 1.0,
    "requests_per_minute": 600_000,
    "parallel": 1,
    "timeout_seconds": 5.0,
    "retries": {"tries": 4, "seconds": 600.0},
    "key_variable": "TEACHER_KEY",
    "learner": {
        "mode": "scratch",
        "architecture": "t5",
        "sizes": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4},
        "tokenizer": {"kind": "unigram", "vocab_size": 300},
        "training": SEQUENCE_TRAINING,
    },
    "store": "answers",
}


def settings(**changes: Any) -> dict[str, Any]:
    """A section `teach` with some values changed; a dictionary changes some of a section's."""
    changed = {
        name: SETTINGS[name] | value if isinstance(SETTINGS.get(name), dict) else value
        for name, value in changes.items()
    }
    return SETTINGS | changed


def teacher(web: OpenAIServer, **changes: Any) -> ApiTeacher:
    return ApiTeacher.model_validate(settings(**{"url": web.url} | changes))


class FastClock(Clock):
    """Sleeps at once, and remembers for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.slept, self.lock = 0.0, [], threading.Lock()

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        super().sleep(0)
        with self.lock:
            self.time += seconds
            if seconds > 0.01:
                self.slept.append(seconds)


@pytest.fixture
def web() -> Iterator[OpenAIServer]:
    with openai_server() as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's folder."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "back.txt").write_text(PROMPT, encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
