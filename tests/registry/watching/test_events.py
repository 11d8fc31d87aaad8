"""Watching: what is printed, where it resumes, and that a crash anywhere loses no event."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from slm_registry import ConflictError, CorruptError, NotFoundError, Registry, UnreachableError, UsageError
from slm_registry.cli import main
from slm_registry.log.entries import entry_key
from slm_registry.watching.events import Feed, Position, StateFile

from tests.registry.helpers import REPOSITORY
from tests.registry.receiver import SECRET, Receiver, receiving
from tests.registry.recording import RecordingStore
from tests.registry.serverprocess import until

MANY = 12


@pytest.fixture
def published(registry: Registry, bundle: Path, other_bundle: Path) -> Registry:
    """Four entries: publish, alias, publish, alias."""
    registry.publish(bundle, "m", lineage={}, alias="production", reason="first")
    registry.publish(other_bundle, "m", lineage={}, alias="production")
    return registry


def test_a_feed_reads_each_entry_once(published: Registry, bundle: Path) -> None:
    feed = Feed(published.store, "m", Position())
    assert [entry.op for entry in feed.read()] == ["publish", "alias", "publish", "alias"]
    assert list(feed.read()) == []
    published.alias("m", "staging", "1.0.0")
    (entry,) = feed.read()
    assert (entry.seq, entry.details["alias"]) == (5, "staging")
    assert feed.position == Position(5, entry.digest)
    assert list(Feed.from_now(published.store, "m").read()) == []
    assert [entry.seq for entry in Feed.starting_at(published.store, "m", 3).read()] == [3, 4, 5]
    assert list(Feed.starting_at(published.store, "m", 6).read()) == []


def test_a_look_costs_two_requests(published: Registry) -> None:
    store = RecordingStore(published.store)
    feed = Feed.from_now(store, "m")
    store.calls.clear()
    assert list(feed.read()) == []
    assert store.calls == [("get", entry_key("m", 5)), ("get", entry_key("m", 4))]


def test_places_that_are_not_there(published: Registry) -> None:
    for seq, kind in ((0, UsageError), (-3, UsageError), (7, NotFoundError)):
        with pytest.raises(kind):
            Feed.starting_at(published.store, "m", seq)
    with pytest.raises(NotFoundError, match="no model 'other'"):
        Feed.from_now(published.store, "other")


def test_a_log_that_is_not_the_one_that_was_read(
    folder_registry: Registry, bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    folder_registry.publish(bundle, "m", lineage={}, alias="production")
    feed = Feed.from_now(folder_registry.store, "m")
    feed.confirm()
    position = feed.position
    log = tmp_path / "store" / "models" / "m" / "log"
    (log / "000000000002.json").unlink()
    with pytest.raises(CorruptError, match="is shorter now"):
        feed.confirm()
    folder_registry.forget("m")
    folder_registry.alias("m", "staging", "1.0.0")
    with pytest.raises(CorruptError, match="has another entry 2 now"):
        feed.confirm()
    folder_registry.forget("m")
    folder_registry.publish(other_bundle, "m", lineage={})
    with pytest.raises(CorruptError, match="it was forked"):
        list(Feed(folder_registry.store, "m", position).read())


def test_a_store_that_is_gone_has_nothing_new(folder_registry: Registry, bundle: Path, tmp_path: Path) -> None:
    folder_registry.publish(bundle, "m", lineage={}, alias="production")
    feed = Feed.from_now(folder_registry.store, "m")
    store, away = tmp_path / "store", tmp_path / "away"
    store.rename(away)
    with pytest.raises(UnreachableError, match="it is gone, or not mounted"):
        list(feed.read())
    store.mkdir()
    with pytest.raises(UnreachableError, match="it is gone, or not mounted"):
        list(feed.read())
    store.rmdir()
    away.rename(store)
    assert list(feed.read()) == []
    for entry in (store / "models" / "m" / "log").iterdir():
        entry.unlink()
    with pytest.raises(CorruptError, match="is shorter now"):
        list(feed.read())


def test_the_state_file(folder_registry: Registry, bundle: Path, tmp_path: Path) -> None:
    folder_registry.publish(bundle, "m", lineage={})
    state = StateFile(tmp_path / "new" / "state.json", folder_registry.store, "m")
    assert state.load() is None
    position = Feed.from_now(folder_registry.store, "m").position
    with state.held():
        state.save(position)
        assert state.load() == position
        with pytest.raises(ConflictError, match="another watch uses it"), state.held():
            pass
    with state.held():
        pass
    with pytest.raises(UsageError, match="name another file"):
        StateFile(state.path, folder_registry.store, "other").load()
    good = state.path.read_text()
    for text in ("", "{}", "[1]", good.replace('"seq":1', '"seq":-1'), good.replace('"seq":1', '"seq":0'), good[:-9]):
        state.path.write_text(text)
        with pytest.raises((CorruptError, UsageError)):
            state.load()


class Cli:
    def __init__(self, url: str, capture: pytest.CaptureFixture[str]) -> None:
        self.url, self.capture = url, capture

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self.capture.readouterr()
        assert main(["watch", *arguments, "--once", "--store", self.url]) == code
        return self.capture.readouterr().out


@pytest.fixture
def watch(url: str, published: Registry, monkeypatch: Any, tmp_path: Path, capsys: Any) -> Cli:
    monkeypatch.setenv("SLM_REGISTRY_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    return Cli(url, capsys)


def test_what_is_printed(watch: Cli, published: Registry) -> None:
    assert watch("m") == ""
    first, second, *_ = watch("m", "--from", "1").splitlines()
    assert " alice publish version=1.0.0 manifest=sha256:" in first
    assert second.endswith("alice alias alias=production version=1.0.0 (first)")
    printed = [json.loads(line) for line in watch("m", "--from", "2", "--json").splitlines()]
    assert printed == [entry.as_dict() for entry in published.log("m")[1:]]
    published.alias("m", "staging", "1.0.0", reason="\x1b[31mred\nline")
    out = watch("m", "--from", "5")
    assert "\x1b" not in out
    assert out.count("\n") == 1
    assert watch("other", code=3) == ""
    assert watch("m", "--poll", "0", code=2) == ""


def test_it_resumes_where_it_was(watch: Cli, published: Registry, tmp_path: Path) -> None:
    state = str(tmp_path / "position.json")
    assert len(watch("m", "--from", "2", "--state", state).splitlines()) == 3
    assert watch("m", "--from", "2", "--state", state) == ""
    published.alias("m", "staging", "1.0.0")
    assert watch("m", "--state", state).split()[0] == "5"
    assert watch("m", "--state", state) == ""


def test_a_webhook_from_the_command_line(watch: Cli, published: Registry) -> None:
    with receiving() as receiver:
        watch("m", "--webhook", receiver.url)
        assert receiver.events == []
        published.alias("m", "staging", "1.0.0")
        receiver.script = ["500"]
        assert watch("m", "--webhook", receiver.url, "--attempts", "1", code=7) == ""
        published.alias("m", "staging", "1.0.1")
        assert len(watch("m", "--webhook", receiver.url).splitlines()) == 2
        watch("m", "--webhook", receiver.url)
        assert receiver.seqs() == [5, 6]
        assert receiver.events == [entry.as_dict() for entry in published.log("m")[4:]]


def test_no_secret(watch: Cli, monkeypatch: Any) -> None:
    monkeypatch.delenv("SLM_REGISTRY_WEBHOOK_SECRET")
    watch("m", "--webhook", "http://127.0.0.1:9/", code=2)


def start_watch(store: str, home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        "PYTHONPATH": str(REPOSITORY / "registry"),
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "SLM_REGISTRY_WEBHOOK_SECRET": SECRET,
    }
    command = [sys.executable, "-m", "slm_registry", "watch", "m", "--store", store, "--poll", "0.02", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_events_come_as_they_happen(folder_registry: Registry, bundle: Path, tmp_path: Path) -> None:
    folder_registry.publish(bundle, "m", lineage={})
    process = start_watch(folder_registry.store.url, tmp_path, "--from", "1", "--json")
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["op"] == "publish"
        for alias in ("a", "b", "c"):
            folder_registry.alias("m", alias, "1.0.0")
            assert json.loads(process.stdout.readline())["alias"] == alias
    finally:
        kill(process)


@pytest.mark.parametrize("moment", ["before", "taken", "anywhere"])
def test_killed_at_any_moment_no_event_is_lost(
    folder_registry: Registry, bundle: Path, tmp_path: Path, moment: str
) -> None:
    """`before`: while the receiver hangs; `taken`: after it took an event and before it answered; `anywhere`: blindly."""
    folder_registry.publish(bundle, "m", lineage={})
    with receiving() as receiver:
        for number in range(MANY):
            folder_registry.alias("m", f"alias-{number}", "1.0.0")
        arguments = ("--from", "1", "--webhook", receiver.url)
        for round_ in range(4):
            receiver.script = {"before": ["ok", "hang"], "taken": ["ok", "keep"], "anywhere": []}[moment]
            seen, tried = len(receiver.events), len(receiver.tried)
            process = start_watch(folder_registry.store.url, tmp_path, *arguments)
            if moment == "anywhere":
                until(lambda tried=tried: len(receiver.tried) > tried or len(receiver.events) > MANY)  # type: ignore[misc]
                time.sleep(0.004 * round_)
            else:
                until(lambda tried=tried: len(receiver.tried) >= tried + 2)  # type: ignore[misc]
                assert len(receiver.events) == seen + (2 if moment == "taken" else 1)
            kill(process)
        check_complete(folder_registry, receiver, tmp_path, arguments)
        repeats = len(receiver.events) - len(set(receiver.seqs()))
        # Only what was under way may come twice.
        assert repeats == {"before": 0, "taken": 4}.get(moment, repeats)
        assert repeats <= 4


def check_complete(registry: Registry, receiver: Receiver, home: Path, arguments: tuple[str, ...]) -> None:
    receiver.script = []
    process = start_watch(registry.store.url, home, *arguments, "--once")
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    seqs = receiver.seqs()
    assert sorted(set(seqs)) == list(range(1, MANY + 2))
    # In order, apart from what was sent again.
    assert [seq for index, seq in enumerate(seqs) if seq not in seqs[:index]] == list(range(1, MANY + 2))
    again = start_watch(registry.store.url, home, *arguments, "--once")
    again.communicate(timeout=60)
    assert receiver.seqs() == seqs


def test_a_store_that_is_away_for_a_while(published: Registry, monkeypatch: Any, caplog: Any) -> None:
    feed = Feed.from_now(published.store, "m")
    get, failures, waits = published.store.get, [True] * 3, list[float]()

    def shaky(key: str, limit: int) -> bytes | None:
        if failures:
            failures.pop()
            raise UnreachableError("the store is away")
        return get(key, limit)

    monkeypatch.setattr(published.store, "get", shaky)
    monkeypatch.setattr("slm_registry.watching.events.time.sleep", waits.append)
    events = feed.follow(0.5)
    published_entry = make_entry(published, monkeypatch, get, shaky)
    assert next(events).digest == published_entry
    assert waits == [1.0, 2.0, 4.0]
    assert caplog.text.count("the store is away") == 3


def make_entry(registry: Registry, monkeypatch: Any, get: Any, shaky: Any) -> str:
    monkeypatch.setattr(registry.store, "get", get)
    registry.alias("m", "late", "1.0.0")
    digest = registry.log("m")[-1].digest
    monkeypatch.setattr(registry.store, "get", shaky)
    return digest
