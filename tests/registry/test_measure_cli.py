"""`slm-registry measure`: what it prints, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import NoReturn

import pytest
from slm_registry.bundles.packed import REQUEST, pack
from slm_registry.cli import main
from slm_registry.runtime import timing
from slm_registry.runtime.machine import INSTRUCTIONS, this_machine

from tests.registry.generators import make_reciter, make_tagger
from tests.registry.helpers import REPOSITORY
from tests.registry.serverprocess import until


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("where is my parcel\n\nmoney back\n")
    return path


def test_a_row_a_folder(bundle: Path, other_bundle: Path, texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Folders may stand behind the options too.
    assert main(["measure", "--rounds", "40", "--texts", str(texts), str(bundle), str(other_bundle), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [row["folder"] for row in value["folders"]] == [str(bundle), str(other_bundle)]
    for row in value["folders"]:
        assert 0 < row["p50_low"] <= row["p50_high"] < 1000
        assert row["p50_ms"] <= row["p95_ms"]
        assert row["per_s"] > 1000 / row["p95_ms"] / 10
        assert row["peak_memory_bytes"] > 10_000_000
    assert (value["threads"], value["rounds"], value["piece"]) == (1, 40, "text")
    assert value["machine"]["cores"] >= 1


def test_a_table_for_people(bundle: Path, texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(bundle), "--rounds", "20", "--texts", str(texts)]) == 0
    head, row, machine = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["folder", "p50", "ms"]
    assert row.startswith(str(bundle)) and row.endswith("MB")
    assert "onnxruntime" in machine


def test_of_what_writes_a_token_is_timed(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten times the tokens take longer a text, and no longer a token."""
    writer = make_reciter(tmp_path / "writer", "word " * 200, positions=1200)
    times = []
    for count in ("8", "80"):
        options = ["--rounds", "20", "--texts", str(texts), "--new-tokens", count]
        assert main(["measure", str(writer), *options, "--json"]) == 0
        value = json.loads(capsys.readouterr().out)
        assert value["piece"] == "token"
        times.append(value["folders"][0])
    assert times[1]["p50_ms"] < 3 * times[0]["p50_ms"]
    assert min(row["per_s"] for row in times) > 1000 / max(row["p95_ms"] for row in times)
    assert main(["measure", str(writer), "--rounds", "20", "--texts", str(texts)]) == 0
    assert "p50 ms a token" in (head := capsys.readouterr().out.splitlines()[0]) and "tokens/s" in head


def test_a_tagger_is_timed_by_the_text(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tagger = make_tagger(tmp_path / "tagger")
    assert main(["measure", str(tagger), "--rounds", "20", "--texts", str(texts)]) == 0
    assert "p50 ms a text" in capsys.readouterr().out


def test_what_machine_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--machine", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["machine"]
    assert told["cores"] >= 1 and set(told["instructions"] or ()) <= set(INSTRUCTIONS.values())
    assert main(["measure", "--machine"]) == 0
    assert capsys.readouterr().out == f"{this_machine()}\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["BUNDLE", "--rounds", "19", "--texts", "TEXTS"], 2, "--rounds is 19; .* 20 or more"),
        (["BUNDLE", "--threads", "0", "--texts", "TEXTS"], 2, "--threads is 0"),
        (["BUNDLE"], 2, "or --stdin alone"),
        (["--texts", "TEXTS"], 2, "or --stdin alone"),
        (["BUNDLE", "--stdin"], 2, "leave the others out"),
        (["BUNDLE", "--machine"], 2, "--machine times nothing"),
        (["--stdin", "--machine"], 2, "--machine times nothing"),
        (["BUNDLE", "--texts", "ABSENT"], 7, "cannot read .*ABSENT"),
        (["BUNDLE", "--texts", "EMPTY"], 5, "EMPTY: .* no list of texts"),
        (["BUNDLE", "--texts", "BAD.json"], 5, r"BAD\.json: .* no list of texts"),
        (["BUNDLE", "--texts", "LATIN"], 5, "LATIN: .*give UTF-8"),
        (["ABSENT", "--texts", "TEXTS"], 2, r"ABSENT.config\.json is missing"),
        (["BUNDLE", "--new-tokens", "0", "--texts", "TEXTS"], 2, "--new-tokens is 0"),
        (["BUNDLE", "TAGGER", "--texts", "TEXTS"], 2, "TAGGER for token-classification; measure those of one task"),
    ],
)
def test_what_cannot_be_measured(
    words: list[str],
    code: int,
    message: str,
    bundle: Path,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "EMPTY").touch()
    (tmp_path / "BAD.json").write_text('{"texts": []}')
    (tmp_path / "LATIN").write_bytes("großartig".encode("latin-1"))
    make_tagger(tmp_path / "TAGGER")
    places = {"BUNDLE": str(bundle), "TEXTS": str(texts)}
    places |= {name: str(tmp_path / name) for name in ("ABSENT", "EMPTY", "BAD.json", "LATIN", "TAGGER")}
    assert main(["measure", *(places.get(word, word) for word in words)]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(message, said.err), said.err


def test_a_machine_without_the_memory_says_so(
    bundle: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object) -> NoReturn:
        raise BrokenExecutor

    monkeypatch.setattr(timing, "peak_memory", killed)
    assert main(["measure", str(bundle), "--rounds", "20", "--texts", str(texts)]) == 1
    assert "is there enough memory?" in capsys.readouterr().err


def stdin_runner(packed: bytes, rounds: int, temporary: Path) -> subprocess.Popen[bytes]:
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "slm_registry", "measure", "--stdin", "--rounds", str(rounds), "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY / "registry"),
            "TMPDIR": str(temporary),
            "HOME": str(temporary),
        },
    )
    assert process.stdin is not None
    process.stdin.write(packed)
    process.stdin.close()
    process.stdin = None
    return process


@pytest.fixture
def packed(bundle: Path) -> bytes:
    buffer = io.BytesIO()
    pack({"0-bundle": sorted(bundle.iterdir())}, ["where is my parcel"], buffer)
    return buffer.getvalue()


def test_a_stream_is_measured_and_removed(packed: bytes, tmp_path: Path) -> None:
    process = stdin_runner(packed, 20, tmp_path / "far")
    out, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
    assert [row["folder"] for row in json.loads(out)["folders"]] == ["0-bundle"]
    assert list((tmp_path / "far").iterdir()) == []


def test_half_a_stream_is_refused_and_removed(packed: bytes, tmp_path: Path) -> None:
    process = stdin_runner(packed[: len(packed) // 2], 20, tmp_path / "far")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 5
    assert json.loads(out)["error"]["type"] == "CorruptError"
    assert b"send it again" in said
    assert list((tmp_path / "far").iterdir()) == []


def test_who_is_told_to_end_removes_what_came(packed: bytes, tmp_path: Path) -> None:
    process = stdin_runner(packed, 100_000_000, tmp_path / "far")
    until(lambda: list((tmp_path / "far").rglob(REQUEST)) != [])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert list((tmp_path / "far").iterdir()) == []
