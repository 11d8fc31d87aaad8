"""A log that is shorter than it was, or another one, is found out by whoever saw it before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slm_registry import CorruptError, NotFoundError, Registry
from slm_registry.log.history import History, Operation
from slm_registry.log.state import ModelState
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore
from slm_registry.stores.s3 import S3Store
from slm_registry.trust.memory import Witness

from tests.registry.helpers import REPOSITORY
from tests.registry.recording import RecordingStore

DIGEST = "sha256:" + "ab" * 32


def append(store: Store, model: str = "m") -> ModelState:
    def decide(state: ModelState) -> Operation:
        return Operation("publish", {"version": f"1.0.{state.seq}", "manifest": DIGEST, "size": 1, "facts": {}})

    return History(store, model).append(decide, actor="alice", reason="")[0]


def cut(store: Store, seq: int, keep: int, model: str = "m") -> None:
    """Take the entries after `keep` out of a log that ends at `seq`."""
    for number in range(keep + 1, seq + 1):
        store.delete(f"models/{model}/log/{number:012d}.json")
    for hint in ("head", "index"):
        store.delete(f"models/{model}/{hint}.json")


@pytest.fixture
def memory(store: Store, tmp_path: Path) -> Witness:
    return Witness(tmp_path / "cache", store)


def test_a_log_that_grows(store: Store, memory: Witness, tmp_path: Path) -> None:
    assert memory.state("m").seq == 0
    for _ in range(3):
        append(store)
        assert memory.state("m") == History(store, "m").state()
    assert memory.models() == ("m",)
    assert Witness(tmp_path / "cache", store).state("m").seq == 3


def test_a_shorter_log(store: Store, memory: Witness) -> None:
    states = [append(store) for _ in range(3)]
    memory.state("m")
    cut(store, 3, 2)
    with pytest.raises(CorruptError) as caught:
        memory.state("m")
    for told in ("rolled back", f"entry 3 ({states[2].entry})", f"entry 2 ({states[1].entry})", "forget m"):
        assert told in str(caught.value)
    cut(store, 3, 0)
    with pytest.raises(CorruptError, match="now there is none"):
        memory.state("m")


@pytest.mark.parametrize("grown", [0, 1, 3])
def test_a_forked_log(store: Store, memory: Witness, grown: int) -> None:
    for _ in range(3):
        append(store)
    seen = memory.state("m").entry
    cut(store, 3, 1)
    forked = [append(store) for _ in range(2 + grown)]
    with pytest.raises(CorruptError) as caught:
        memory.state("m")
    for told in ("forked", str(seen), str(forked[1].entry), f"ends at entry {3 + grown}"):
        assert told in str(caught.value)
    assert memory.forget("m")
    assert memory.state("m").seq == 3 + grown
    assert not memory.forget("n")


def test_an_unchanged_log_costs_no_request_more(store: Store, tmp_path: Path) -> None:
    append(store)
    recorded = RecordingStore(store)
    memory = Witness(tmp_path / "cache", recorded)
    memory.state("m")
    first = list(recorded.calls)
    recorded.calls.clear()
    memory.state("m")
    assert recorded.calls == first
    for _ in range(5):
        append(store)
    recorded.calls.clear()
    memory.state("m")
    assert len(recorded.calls) == len(first) + 1


STEPS = st.lists(st.tuples(st.sampled_from(["append", "read", "cut", "forget"]), st.integers(0, 4)), max_size=14)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(STEPS)
def test_an_alarm_is_raised_exactly_where_the_log_does_not_go_on(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    store = FolderStore(tmp_path / "store")
    memory = Witness(tmp_path / "cache", store)
    log: list[str | None] = []
    seen: list[str | None] = []
    for step, number in steps:
        if step == "append":
            log.append(append(store).entry)
        elif step == "cut":
            cut(store, len(log), min(number, len(log)))
            del log[number:]
        elif step == "forget":
            memory.forget("m")
            seen = []
        elif log[: len(seen)] == seen:
            assert memory.state("m").seq == len(log)
            seen = list(log)
        else:
            with pytest.raises(CorruptError):
                memory.state("m")


def test_a_garbled_memory_is_named(store: Store, memory: Witness, tmp_path: Path) -> None:
    append(store)
    append(store, "n")
    memory.state("m")
    memory.state("n")
    folder = next((tmp_path / "cache" / "memory").iterdir())
    path = folder / "m.json"
    good = path.read_bytes()
    for bad in (
        b"",
        b"{}",
        good[:-1],
        good.replace(b'"seq":1', b'"seq":0'),
        good.replace(b"sha256", b"sha255"),
        b"x" * 20_000,
    ):
        path.write_bytes(bad)
        with pytest.raises(CorruptError, match="forget m"):
            memory.state("m")
    path.write_bytes((folder / "n.json").read_bytes())
    with pytest.raises(CorruptError, match="forget m"):
        memory.state("m")
    assert memory.forget("m")
    assert memory.state("m").seq == 1


def test_a_log_that_grows_while_it_is_read_is_no_alarm(store: Store, tmp_path: Path) -> None:
    """Another process sees more, and remembers it, between this one's reading of the log and its comparing."""
    append(store)
    recorded = RecordingStore(store)
    slow, quick = Witness(tmp_path / "cache", recorded), Witness(tmp_path / "cache", store)
    sound = recorded.get
    raced: list[int] = []

    def get(key: str, limit: int) -> bytes | None:
        data = sound(key, limit)
        if data is None and not raced:
            append(store)
            raced.append(quick.state("m").seq)
        return data

    recorded.get = get  # type: ignore[method-assign]
    assert slow.state("m").seq == 1
    assert raced == [2]
    # The memory did not go back.
    cut(store, 2, 1)
    with pytest.raises(CorruptError, match="saw entry 2"):
        quick.state("m")


READER = """
import sys
from pathlib import Path
from slm_registry.stores.folder import FolderStore
from slm_registry.trust.memory import Witness
memory = Witness(Path(sys.argv[2]), FolderStore(Path(sys.argv[1])))
last = 0
while last < 20:
    seq = memory.state("m").seq
    assert seq >= last
    last = seq
"""


def test_many_processes_share_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    append(store)
    command = [sys.executable, "-c", READER, str(tmp_path / "store"), str(tmp_path / "cache")]
    environment = {"PYTHONPATH": str(REPOSITORY / "registry")}
    readers = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for _ in range(19):
        append(store)
    for reader in readers:
        assert reader.communicate(timeout=120)[1] == ""
        assert reader.returncode == 0
    cut(store, 20, 19)
    with pytest.raises(CorruptError, match="saw entry 20"):
        Witness(tmp_path / "cache", store).state("m")


def test_stores_are_told_apart(tmp_path: Path) -> None:
    first, second = (FolderStore(tmp_path / name) for name in ("a", "b"))
    append(first)
    Witness(tmp_path / "cache", first).state("m")
    assert Witness(tmp_path / "cache", second).state("m").seq == 0
    assert FolderStore(tmp_path / "a" / ".." / "a").identity == first.identity


def test_buckets_of_one_name_at_two_endpoints_are_two_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    plain = S3Store.from_url("s3://models/team")
    first, second = (S3Store.from_url(f"s3://models/team?endpoint_url=http://{host}") for host in ("a", "b"))
    assert len({plain.identity, first.identity, second.identity}) == 3
    assert S3Store.from_url("s3://models/team?endpoint_url=http://a/").identity == first.identity
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://a")
    assert S3Store.from_url("s3://models/team").identity == first.identity


def test_the_client_refuses_everywhere(registry: Registry, bundle: Path, other_bundle: Path) -> None:
    registry.publish(bundle, "m", lineage={})
    registry.publish(other_bundle, "m", lineage={})
    registry.publish(bundle, "n", lineage={})
    assert registry.models() == ("m", "n")
    cut(registry.store, 2, 1)
    for call in (
        lambda: registry.load("m"),
        lambda: registry.resolve("m"),
        lambda: registry.show("m"),
        lambda: registry.log("m"),
        registry.list,
        registry.models,
        lambda: registry.alias("m", "production", "1.0.0"),
        lambda: registry.publish(other_bundle, "m", lineage={}),
    ):
        with pytest.raises(CorruptError, match="rolled back"):
            call()
    assert registry.store.get("models/m/log/000000000002.json", 9999) is None
    # A model that is gone altogether is missed, too.
    cut(registry.store, 2, 0)
    for again in (registry.models, lambda: registry.load("m")):
        with pytest.raises(CorruptError, match="now there is none"):
            again()
    assert registry.forget("m")
    assert registry.models() == ("n",)
    with pytest.raises(NotFoundError):
        registry.load("m")


def test_nothing_is_written_on_a_log_that_lost_what_was_seen(
    folder_registry: Registry, bundle: Path, tmp_path: Path
) -> None:
    """The hints still tell of the entry, so a reader takes the state that it knows; a writer reads the log itself."""
    registry = folder_registry
    registry.publish(bundle, "m", lineage={}, alias="production")
    registry.resolve("m")
    (tmp_path / "store" / "models" / "m" / "log" / "000000000002.json").unlink()
    assert registry.resolve("m").version == "1.0.0"
    for call in (
        lambda: registry.alias("m", "staging", "1.0.0"),
        lambda: registry.rollback("m", "production"),
        lambda: registry.deprecate("m", "1.0.0", reason="old"),
        lambda: registry.publish(bundle, "m", version="2.0.0", lineage={}),
    ):
        with pytest.raises(CorruptError, match="rolled back"):
            call()
    assert not (tmp_path / "store" / "models" / "m" / "log" / "000000000002.json").exists()


def test_a_cache_that_cannot_be_written_is_worth_a_word(
    folder_registry: Registry, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "memory").write_text("in the way")
    folder_registry.publish(bundle, "m", lineage={})
    assert folder_registry.resolve("m").version == "1.0.0"
    assert "not remembered" in caplog.text
