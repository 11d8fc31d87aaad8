"""The cache keeps within its size, takes what was used longest ago, and never what anybody uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from slm_registry import Registry, UsageError
from slm_registry.caching.eviction import Evictor, fetching, parse_size
from slm_registry.cli import main

from tests.registry.helpers import REPOSITORY, make_bundle

USE = """
import sys
from slm_registry import Registry
registry = Registry(sys.argv[1], cache=sys.argv[2])
print(registry.pull("m@1.0.0"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Three versions; each has a model of its own and shares the rest."""
    registry = Registry(tmp_path / "store", cache=tmp_path / "unused")
    for number in range(3):
        folder = make_bundle(tmp_path / str(number), weight=1.0 + number)
        (folder / "notes.md").write_bytes(bytes([65 + number]) * 50_000)
        registry.publish(folder, "m", lineage={})
    return str(tmp_path / "store")


def pulled(store: str, cache: Path) -> dict[str, Path]:
    """Every version, pulled by a client that is gone, the oldest use first."""
    registry = Registry(store, cache=cache)
    paths = {}
    for index, version in enumerate(("1.0.0", "1.0.1", "1.0.2")):
        paths[version] = registry.pull(f"m@{version}")
        os.utime(cache / "locks" / f"{paths[version].name}.lock", (1000 + index, 1000 + index))
    registry.cache.close()
    return paths


def test_the_least_recently_used_goes_first(store: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    paths = pulled(store, cache)
    evictor = Evictor(cache)
    before = evictor.size()
    assert [kept.digest for kept in evictor.snapshots()] == [path.name for path in paths.values()]
    # Used again: now the oldest is another.
    registry = Registry(store, cache=cache)
    registry.load("m@1.0.0")
    registry.cache.close()
    (gone,) = evictor.evict(before - 1)
    assert gone.digest == paths["1.0.1"].name
    assert before - 60_000 < evictor.size() < before - 50_000
    assert not paths["1.0.1"].exists()
    assert Registry(store, cache=cache).load("m@1.0.1").labels


def test_a_bound_is_kept_by_who_fetches(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    for version in ("1.0.0", "1.0.1", "1.0.2"):
        Registry(store, cache=cache, cache_size=120_000).load(f"m@{version}")
        assert Evictor(cache).size() <= 120_000
    assert len(Evictor(cache).snapshots()) == 2
    monkeypatch.setenv("SLM_REGISTRY_CACHE_SIZE", "60kB")
    Registry(store, cache=cache).load("m@1.0.0")
    assert [kept.digest for kept in Evictor(cache).snapshots()] == [
        Registry(store).resolve("m@1.0.0").digest.removeprefix("sha256:")
    ]


def test_what_another_process_uses_stays(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "cache"
    paths = pulled(store, cache)
    user = subprocess.Popen(
        [sys.executable, "-c", USE, store, str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY / "registry"), "PATH": "", "HOME": str(tmp_path)},
    )
    assert user.stdout is not None
    assert user.stdout.readline().strip() == str(paths["1.0.0"])
    evictor = Evictor(cache)
    assert [kept.in_use for kept in evictor.snapshots()] == [False, False, True]
    assert {kept.digest for kept in evictor.evict(0)} == {paths["1.0.1"].name, paths["1.0.2"].name}
    assert (paths["1.0.0"] / "model.onnx").is_file()
    assert "the rest is in use" in caplog.text
    # Killed, it uses nothing any more.
    user.kill()
    user.communicate()
    assert [kept.digest for kept in evictor.evict(0)] == [paths["1.0.0"].name]
    assert evictor.size() == 0


def in_use(cache: Path) -> set[str]:
    return {kept.digest for kept in Evictor(cache).snapshots() if kept.in_use}


def test_what_is_done_with_is_given_free(store: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    registry = Registry(store, cache=cache)
    first, again = registry.load("m@1.0.0"), registry.load("m@1.0.0")
    digest = registry.resolve("m@1.0.0").digest.removeprefix("sha256:")
    first.close()
    first.close()
    assert in_use(cache) == {digest}
    again.close()
    assert in_use(cache) == set()
    # What was pulled has no end but the registry's.
    registry.pull("m@1.0.0")
    registry.load("m@1.0.0").close()
    assert in_use(cache) == {digest}
    registry.cache.close()
    # Copies and checks use it for as long as they take, and a model that does not load not at all.
    registry.pull("m@1.0.0", tmp_path / "copy")
    with pytest.raises(UsageError):
        registry.load("m@1.0.1", threads=0)
    assert in_use(cache) == set()


def test_nothing_is_taken_while_somebody_fetches(store: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    pulled(store, cache)
    with fetching(cache):
        assert Evictor(cache).evict(0) == ()
    assert len(Evictor(cache).evict(0)) == 3


@pytest.mark.parametrize("command", [["clear"], ["evict", "--to", "1kB"]])
def test_the_commands_say_that_somebody_fetches(
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    cache = tmp_path / "cache"
    pulled(store, cache)
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(cache))
    with fetching(cache):
        assert main(["cache", *command]) == 0
        assert capsys.readouterr().out.startswith("nothing was removed: somebody is fetching")
        assert main(["cache", *command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["removed"], told["fetching"]) == ([], True)
    assert main(["cache", *command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["removed"]), told["fetching"]) == (3, False)


def test_what_broken_runs_left_goes_before_any_snapshot(store: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    pulled(store, cache)
    size = Evictor(cache).size()
    (cache / "blobs" / ("0" * 64 + ".partial")).write_bytes(b"x" * 1000)
    (cache / ".tmp" / "left").mkdir(parents=True)
    (cache / ".tmp" / "left" / "file").write_bytes(b"x" * 1000)
    assert Evictor(cache).evict(size) == ()
    assert Evictor(cache).size() == size


RACE = """
import random, sys
from slm_registry import Registry
store, cache, seed = sys.argv[1:]
turns = random.Random(int(seed))
for _ in range(25):
    registry = Registry(store, cache=cache, cache_size=70_000)
    assert registry.load(f"m@1.0.{turns.randrange(3)}").predict(["hello"])[0].label == "other"
"""


def test_processes_that_fetch_use_and_evict_at_once(store: str, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, store, str(tmp_path / "cache"), str(seed)],
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(REPOSITORY / "registry"), "PATH": "", "HOME": str(tmp_path)},
        )
        for seed in range(4)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors


@pytest.mark.parametrize(
    ("text", "size"),
    [("5", 5), ("1kB", 1000), ("1.5 MB", 1_500_000), ("2GiB", 2 << 30), ("1g", 10**9), ("3TB", 3 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1XB", "1e3", "GB", "1 2", "9" * 400])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="size"):
        parse_size(text)


def test_the_commands(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SLM_REGISTRY_CACHE_SIZE", raising=False)
    pulled(store, tmp_path / "cache")

    def run(*words: str, code: int = 0) -> str:
        assert main(["cache", *words]) == code
        found = capsys.readouterr()
        return found.err if code else found.out

    rows = json.loads(run("list", "--json"))
    assert [row["model"] for row in rows] == ["m"] * 3
    assert [row["used"][:7] for row in rows] == ["1970-01"] * 3
    assert run("list").splitlines()[0].split() == ["model", "digest", "size", "last", "used"]
    size = json.loads(run("size", "--json"))
    assert size["limit"] is None
    assert 150_000 < size["size"] < 170_000
    assert "no bound is named" in run("evict", code=2)
    gone = json.loads(run("evict", "--to", "120kB", "--json"))
    assert [row["digest"] for row in gone["removed"]] == [rows[0]["digest"]]
    assert run("clear").splitlines()[-1].endswith(": 0 B")
    assert json.loads(run("list", "--json")) == []
