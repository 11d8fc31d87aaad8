"""Peers: the conversation with a process of its own, what goes wrong in it, and environments that are kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from slm_registry.runtime import timing

from benchmarks import peers
from benchmarks.peers import environments
from benchmarks.peers.environments import environment
from benchmarks.peers.errors import PeerError
from benchmarks.peers.processes import Peer, build, serving
from benchmarks.peers.served import Job

BUILD = """
import json, os, sys, time
from pathlib import Path
import numpy as np

def build(job):
    texts, labels = job.rows("train")
    print("said while building", len(texts))
    for name in ("one", "two"):
        (Path(job.out) / name).mkdir()
        (Path(job.out) / name / "labels.json").write_text(json.dumps(labels))
    return {"one": 1.5, "two": 2.5}

def load(folder, job):
    print("said while loading")
    share = {"one": 0.75, "two": 0.25}[folder.name]
    def answer(texts):
        os.write(1, b"said while answering\\n")
        %s
    return answer
"""
HONEST = "return np.array([[share, 1 - share]] * len(texts))"


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Peer, Job]]:
    """A fake peer, whose answers are a piece of Python, run by this interpreter, and its job."""

    def make(answer: str, script: str = BUILD) -> tuple[Peer, Job]:
        monkeypatch.setattr(peers, "HERE", tmp_path)
        for folder in ("fake", "work", "work/systems"):
            (tmp_path / folder).mkdir()
        (tmp_path / "fake" / "peer.py").write_text(script % answer if "%s" in script else script)
        rows = tmp_path / "rows.jsonl"
        rows.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
        job = Job(str(rows), str(rows), ["x", "y"], "teacher", "body", str(tmp_path / "work" / "systems"), 1, 17, 64)
        return Peer("fake", Path(sys.executable), tmp_path / "work"), job

    return make


def test_what_is_built_is_served_and_timed_by_its_own_clock(peer: Callable[[str], tuple[Peer, Job]]) -> None:
    fake, job = peer(f"time.sleep(0.002 if share == 0.75 else 0.03); {HONEST}")
    assert build(fake, job) == {"one": 1.5, "two": 2.5}
    assert "said while building 2" in (fake.work / "build.log").read_text()
    with serving(fake, job) as systems:
        assert list(systems) == ["one", "two"]
        assert systems["one"](["ä", "b", "c"]).tolist() == [[0.75, 0.25]] * 3
        assert systems["two"](["a"]).argmax(1).tolist() == [1]
        times = timing._in_turns([systems["one"], systems["two"]], [["a"], ["b"]], 5, 2, 1)
    assert times.shape == (2, 5)
    assert (times[0] >= 0.002).all() and (times[1] >= 0.03).all()
    assert np.median(times[0]) < 0.02
    assert "said while answering" in (fake.work / "serve.log").read_text()


def test_the_way_to_the_peer_is_no_part_of_its_time(peer: Callable[[str], tuple[Peer, Job]]) -> None:
    fake, job = peer(
        "class Slow:\n            def tolist(self): time.sleep(0.1); return [[0.5, 0.5]]\n        return Slow()"
    )
    build(fake, job)
    with serving(fake, job) as systems:
        (milliseconds,) = timing.latencies([systems["one"]], ["a"], 1)[0]
    assert milliseconds < 50


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("os._exit(7)", "its process ended with code 7 instead of an answer"),
        ("raise ValueError('no such text')", "its process ended with code 1 instead of an answer"),
        (HONEST.replace("len(texts)", "1"), r"answered \[\(1, 2\)\] probabilities, 1 times; asked for \[\(2, 2\)\]"),
        ("return np.ones((len(texts), 3))", r"answered \[\(2, 3\)\] probabilities"),
        ("return np.full((len(texts), 2), np.nan)", "something that is no probability"),
        ("return np.array(['many'] * len(texts))", "answered no probabilities and seconds"),
    ],
)
def test_a_peer_that_dies_or_answers_something_else_is_an_error_that_names_its_log(
    peer: Callable[[str], tuple[Peer, Job]], answer: str, told: str
) -> None:
    fake, job = peer(answer)
    build(fake, job)
    with serving(fake, job) as systems:
        with pytest.raises(PeerError, match=rf"fake: .*{told}.*serve\.log"):
            systems["one"](["a", "b"])
        if "ended" in told:
            with pytest.raises(PeerError, match=told):
                systems["two"](["a"])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("garbage", "answered 'garbage.n', which is no JSON"),
        ("[1]", "answered .* no JSON object"),
        ('{"systems": ["one"]}', "serves .'one'. instead of what it built"),
    ],
)
def test_garbage_on_the_line_is_an_error(
    peer: Callable[[str], tuple[Peer, Job]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, told: str
) -> None:
    fake, job = peer(HONEST)
    build(fake, job)
    program = tmp_path / "program.py"
    program.write_text(f"print({line!r})")
    monkeypatch.setattr("benchmarks.peers.processes.served.__file__", str(program))
    with pytest.raises(PeerError, match=rf"fake: {told}.*serve\.log"), serving(fake, job):
        pass


def test_a_peer_that_hangs_is_ended(peer: Callable[[str], tuple[Peer, Job]], monkeypatch: pytest.MonkeyPatch) -> None:
    fake, job = peer("time.sleep(60)")
    build(fake, job)
    with pytest.raises(PeerError, match=r"no answer within 0.5 s.*serve\.log"), serving(fake, job) as systems:
        monkeypatch.setattr("benchmarks.peers.processes.ANSWER_SECONDS", 0.5)
        systems["one"](["a"])


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("raise SystemExit(3)", "its build ended with code 3"),
        ("def build(job): return {'one': 1.0}", "its build left no folder one"),
        ("def build(job): return {}", "its build left no folder at all"),
    ],
)
def test_a_build_that_fails_is_an_error_that_names_its_log(
    peer: Callable[[str, str], tuple[Peer, Job]], script: str, told: str
) -> None:
    with pytest.raises(PeerError, match=rf"fake: {told}; its log: .*build\.log"):
        build(*peer("", script))


def test_an_environment_is_made_once_for_the_same_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> object:
        commands.append(command)
        return type("Done", (), {"returncode": int("broken" in pins.read_text())})

    monkeypatch.setattr(peers, "HERE", tmp_path)
    monkeypatch.setattr(environments.subprocess, "run", run)
    pins = tmp_path / "fake" / "requirements.txt"
    pins.parent.mkdir()
    for text, made in (("tool==1", 3), ("tool==1", 3), ("tool==2", 6)):
        pins.write_text(text)
        assert environment("fake", tmp_path / "venvs") == tmp_path / "venvs" / "fake" / "bin" / "python"
        assert len(commands) == made
    pins.write_text("broken")
    for _ in range(2):  # what failed is tried again
        with pytest.raises(PeerError, match=r"fake: `.*` failed; its log: .*fake-install\.log"):
            environment("fake", tmp_path / "venvs")
    assert len(commands) == 8


@pytest.mark.parametrize("name", peers.NAMES)
def test_every_pin_is_exact_and_no_index_is_named(name: str) -> None:
    lines = (peers.HERE / name / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 5
    for pin in pins:
        package, _, version = pin.partition("==")
        assert package and version and not set(version) & set("+ ;@/<>"), pin


def test_four_tools_stand_beside() -> None:
    assert set(peers.NAMES) == {"model2vec", "olive", "openvino", "setfit"}
