"""The file of answers: what a crash leaves, what damage does, and one writer at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.environment import ROOT
from pipelines.errors import DataError, ResourceError
from pipelines.remote_teacher.questions import sha256_of_text
from pipelines.remote_teacher.store import Answer, AnswerStore
from tests.openai_server import OpenAIServer
from tests.pipelines.remote_teacher.conftest import settings

IDENTITY = {"model": "m", "max_tokens": 5}
ONE, TWO = (Answer(key, "0" * 64, 0, text, "stop", "m", 1, 2, "usage", 0.5) for key, text in (("a", "ä\n"), ("b", "x")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two answers and a lost request."""
    with AnswerStore(tmp_path, IDENTITY) as store:
        store.append(ONE)
        store.lose("b", 0.25)
        store.append(TWO)
        return store.path


def test_what_was_appended_is_there(tmp_path: Path, path: Path) -> None:
    with AnswerStore(tmp_path, IDENTITY) as store:
        assert (store.get("a"), store.get("b"), store.get("c")) == (ONE, TWO, None)
        assert store.spent == 1.25
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [
        "teacher",
        "answer",
        "lost",
        "answer",
    ]


def test_cut_anywhere_all_whole_lines_count(tmp_path: Path, path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with AnswerStore(tmp_path, IDENTITY) as store:
            lines = whole[:length].count(b"\n")
            assert (store.get("a") is not None, store.get("b") is not None) == (lines >= 2, lines >= 4)
            if lines < 2:
                store.append(ONE)
        with AnswerStore(tmp_path, IDENTITY) as store:
            assert store.get("a") == ONE


@pytest.mark.parametrize("line", [1, 2, 3, 4])
def test_a_damaged_line_is_named(tmp_path: Path, path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for place in range(0, len(lines[line - 1]) - 1, 7):
        bad = bytearray(lines[line - 1])
        bad[place] ^= 1
        path.write_bytes(b"".join([*lines[: line - 1], bytes(bad), *lines[line:]]))
        with pytest.raises(DataError, match=rf"jsonl:{line}: the line is damaged; delete it"):
            AnswerStore(tmp_path, IDENTITY)
    path.write_bytes(b"".join(lines))
    AnswerStore(tmp_path, IDENTITY).__exit__()  # and no lock is left behind


def test_one_writer_at_a_time(tmp_path: Path, path: Path) -> None:
    with AnswerStore(tmp_path, IDENTITY), pytest.raises(ResourceError, match="another process writes answers there"):
        AnswerStore(tmp_path, IDENTITY)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, write = path.read_bytes(), os.write
    with AnswerStore(tmp_path, IDENTITY) as store:

        def half(descriptor: int, data: bytes) -> int:
            if len(data) < 100:
                raise OSError(28, "No space left on device")
            return write(descriptor, bytes(data)[:-50])

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            store.append(Answer("c", "0" * 64, 0, "z", None, None, 1, 1, "usage", 0.0))
        monkeypatch.undo()
        assert store.get("c") is None and path.read_bytes() == before


CHILD = """
import json, sys
from pathlib import Path
from pipelines.config import ApiTeacher
from pipelines.data.clean import Split
from pipelines.remote_teacher import ask_teacher
rows = Split([f"row {number}" for number in range(60)], targets=["t"] * 60)
root = Path(sys.argv[1])
ask_teacher(ApiTeacher.model_validate_json(sys.argv[2]), rows, root, root / "out")
"""


def test_a_killed_run_asks_only_for_what_is_missing(web: OpenAIServer, root: Path) -> None:
    def slow(text: str) -> str:
        time.sleep(0.03)
        return "ok"

    web.behaviour = slow
    command = [sys.executable, "-c", CHILD, str(root), json.dumps(settings(url=web.url, parallel=4))]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'registry'}"}
    kept: set[str] = set()
    asked_when_kept: dict[str, int] = {}
    for goal in (10, 30):
        child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while sum(web.answered.values()) < goal:
            assert child.poll() is None
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        time.sleep(0.1)  # what the endpoint has yet to notice
        now = _stored(root)
        assert kept <= now and len(now) >= goal - 8
        kept = now
        asked_when_kept = {text: web.asked[text] for text in web.asked if sha256_of_text(text) in kept}
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert len(_stored(root)) == len(web.asked) == 60
    assert asked_when_kept == {text: web.asked[text] for text in asked_when_kept} and len(asked_when_kept) >= 22
    # Twice killed, with at most 4 requests under way each time; each of those at most once more.
    assert sum(web.asked.values()) <= 60 + 2 * 4
    assert len(json.loads((root / "out" / "answers.json").read_text())) == 60


def _stored(root: Path) -> set[str]:
    (path,) = (root / "answers").glob("*.jsonl")
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
    return {line["text_sha256"] for line in map(json.loads, whole) if line["kind"] == "answer"}
