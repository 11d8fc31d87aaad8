from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.data.generations import collect, main
from pipelines.errors import DataError
from tests.tiny_generators import tiny_causal


def test_the_same_seed_gives_the_same_texts_and_another_gives_others(tmp_path: Path) -> None:
    model = tiny_causal(tmp_path / "model", "llama")
    settings = model / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": list(range(40))}))
    for name, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        assert main([str(model), str(tmp_path / name), "--texts", "48", "--tokens", "12", "--seed", seed]) == 0
    one, two, three = (
        [(tmp_path / name / f"{split}.jsonl").read_text() for split in ("train", "validation", "test")]
        for name in ("one", "two", "three")
    )
    assert one == two != three
    rows = [json.loads(line) for part in one for line in part.splitlines()]
    assert all(set(row) == {"text"} and row["text"].strip() for row in rows)
    assert 20 <= len(rows) < 48  # some came to no end


def test_too_few_texts_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="2 texts came to an end, too few for validation"):
        collect(["one", "two"], tmp_path)
    assert main([str(tmp_path / "absent"), str(tmp_path), "--texts", "1", "--tokens", "8", "--seed", "1"]) != 0
    assert "no such folder" in capsys.readouterr().err
