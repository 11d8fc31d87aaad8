"""`slm-registry generate`, and `predict` with a tagger."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from slm_registry import Registry, TextClassifier, TextGenerator, UsageError
from slm_registry.cli import main

from tests.registry.generators import STORY, make_reciter, make_tagger
from tests.registry.helpers import make_bundle


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SLM_REGISTRY_URL", str(tmp_path / "store"))
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache", actor="alice")
    registry.publish(make_reciter(tmp_path / "reciter"), "story", lineage={}, alias="production")
    registry.publish(make_tagger(tmp_path / "tagger"), "tags", lineage={})
    registry.publish(make_bundle(tmp_path / "bundle"), "m", lineage={})
    return tmp_path / "store"


def test_text_is_printed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "story@production", "O"]) == 0
    assert capsys.readouterr().out == STORY[1:] + "\n"
    assert main(["generate", "story", "--max-new-tokens", "3", "--temperature", "0", "O"]) == 0
    assert capsys.readouterr().out == "nce\n"
    assert main(["generate", "story", "O", "--stop", "never", "--stop", "time", "--temperature=.1", "--seed=3"]) == 0
    assert capsys.readouterr().out == "nce upon a \n"


def test_as_json_and_from_standard_input(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("On\n"))
    assert main(["generate", "story", "-", "--max-new-tokens", "2", "--top-k", "3", "--top-p", ".9", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert len(value.pop("token_ids")) == 2
    assert value == {"text": "ce", "finish_reason": "length", "prompt_tokens": 2}


def test_what_a_terminal_would_obey_is_not_printed(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Registry(store).publish(make_reciter(tmp_path / "rude", "x\x1b[2Jy\nz"), "rude", lineage={})
    assert main(["generate", "rude", "x"]) == 0
    assert capsys.readouterr().out == "?[2Jy\nz\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["generate", "m", "x"], "m is for text-classification; it was to be loaded as Generator"),
        (["generate", "story", "x" * 64], "prompt 0 has 64 tokens"),
        (["generate", "story", "x", "--temperature", "-1"], "--temperature is -1"),
        (["generate", "story", "x", "--temperature", "nan"], "--temperature is nan"),
        (["generate", "story", "x", "--top-p", "0"], "--top-p is 0; give a number above 0"),
        (["generate", "story", "x", "--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["predict", "story", "x"], "story is for text-generation; use slm-registry generate"),
    ],
)
def test_what_cannot_be_meant(
    store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err


def test_predict_prints_spans(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "tags", "I met Ada Lovelace", "in london"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["PER\t0.9317\t6-18\tAda Lovelace", "LOC\t0.9317\t3-9\tlondon"]
    assert main(["predict", "tags", "in london", "no", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["spans"][0] | {"score": 0} == {"label": "LOC", "text": "london", "start": 3, "end": 9, "score": 0}
    assert second == {"text": "no", "spans": []}


def test_a_kind_may_be_asked_for(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(store)
    with registry.load("story", kind=TextGenerator) as model:
        assert model.task == "text-generation"
    with pytest.raises(UsageError, match="story is for text-generation; it was to be loaded as TextClassifier"):
        registry.load("story", kind=TextClassifier)
    # Nothing holds on to its files then.
    capsys.readouterr()
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.endswith(": 0 B\n")
