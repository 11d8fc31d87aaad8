"""The cached states in a store: what they save, that a lie in them is found, and that the log alone decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slm_registry import CorruptError, NotFoundError, Registry
from slm_registry.log.entries import encode_entry, entry_key
from slm_registry.log.hints import encode_head, encode_index, parse_head, parse_index
from slm_registry.log.history import History, Operation
from slm_registry.log.state import ModelState, fold, next_state, state_digest
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import canonical
from slm_registry.stores.base import Store

from tests.registry.recording import RecordingStore

DIGEST = "sha256:" + "ab" * 32
HEAD, INDEX = "models/m/head.json", "models/m/index.json"


def always(operation: Operation) -> Callable[[ModelState], Operation]:
    return lambda state: operation


def publish(version: str) -> Operation:
    return Operation("publish", {"version": version, "manifest": DIGEST, "size": 3, "facts": {}})


def alias(name: str) -> Operation:
    return Operation("alias", {"alias": name, "version": "1.0.0", "expected": None})


def append(store: Store, *operations: Operation) -> History:
    history = History(store, "m")
    for operation in operations:
        history.append(always(operation), actor="a", reason="")
    return history


def history_of(store: Store, count: int) -> History:
    """A history with one version and `count - 1` aliases."""
    return append(store, publish("1.0.0"), *(alias(f"a{number}x") for number in range(count - 1)))


def told(store: Store, key: str) -> bytes:
    data = store.get(key, 1 << 20)
    assert data is not None
    return data


def truth(store: Store) -> ModelState:
    return fold(History(store, "m").entries(), ModelState("m"))


def test_an_alias_is_resolved_in_two_requests_whatever_the_number_of_versions(store: Store) -> None:
    for count in (1, 40):
        recorded = RecordingStore(store)
        append(store, *(publish(f"{count}.0.{number}") for number in range(count)))
        if count == 1:
            append(store, Operation("alias", {"alias": "production", "version": "1.0.0", "expected": None}))
        for ref, version in {"m@production": "1.0.0", "m": "1.0.0", "m@latest": f"{count}.0.{count - 1}"}.items():
            # The first look after the log grew also reads the entry that was seen last.
            Registry(recorded).resolve(ref)
            recorded.calls.clear()
            assert Registry(recorded).resolve(ref).version == version
            assert recorded.calls == [("get", HEAD), ("get", entry_key("m", truth(store).seq + 1))]


def test_the_whole_state_takes_three(store: Store) -> None:
    history_of(store, 6)
    recorded = RecordingStore(store)
    assert Registry(recorded).resolve("m@1.0.0").version == "1.0.0"
    assert recorded.named("get") == [(HEAD,), (INDEX,), (entry_key("m", 7),)]


def test_a_move_of_an_alias_does_not_write_the_index(store: Store) -> None:
    append(store, publish("1.0.0"))
    recorded = RecordingStore(store)
    append(recorded, alias("a"))
    assert recorded.named("put") == [(HEAD,)]
    recorded.calls.clear()
    append(recorded, publish("1.0.1"))
    assert recorded.named("put") == [(INDEX,), (HEAD,)]


def test_the_head_stays_small(store: Store) -> None:
    append(store, publish("1.0.0"), alias("production"), alias("staging"))
    before = len(told(store, HEAD))
    append(store, *(publish(f"2.0.{number}") for number in range(50)))
    assert len(told(store, HEAD)) < before + 500
    assert len(told(store, INDEX)) > 10 * before


@pytest.mark.parametrize("keys", [(HEAD,), (INDEX,), (HEAD, INDEX)], ids=["head", "index", "both"])
def test_an_old_hint_is_followed_to_the_end(store: Store, keys: tuple[str, ...]) -> None:
    history_of(store, 2)
    old = {key: told(store, key) for key in keys}
    append(store, publish("1.0.1"), alias("later"))
    for key, data in old.items():
        store.put(key, data)
    assert History(store, "m").state() == truth(store)
    assert History(store, "m").state().seq == 4
    assert History(store, "m").head().aliases == truth(store).aliases


def lies(head: dict[str, Any]) -> dict[str, bytes]:
    """Heads that say another thing than the log."""
    state, last = head["state"], head["last"]
    moved = {**state, "aliases": {**state["aliases"], "a0x": {**state["aliases"]["a0x"], "version": "6.6.6"}}}
    other = {**state, "pinned": [{**state["pinned"][0], "manifest": "sha256:" + "66" * 32}]}
    return {
        "garbage": b"garbage",
        "empty": b"",
        "another alias": canonical({**head, "state": moved}),
        "another digest": canonical({**head, "state": other}),
        "another entry": canonical({**head, "last": {**last, "nonce": "x"}, "state": moved}),
        "another model": canonical({**head, "state": {**state, "model": "x"}}),
        "a future number": canonical({**head, "state": {**state, "seq": 99}, "last": {**last, "seq": 99}}),
        "an old number": canonical({**head, "state": {**state, "seq": 1}, "last": {**last, "seq": 1}}),
        "number zero": canonical({**head, "state": {**state, "seq": 0}}),
        "wrong kinds": canonical({**head, "state": {**state, "pinned": [1]}}),
        "no entry": canonical({**head, "last": None}),
        "format 1": canonical({**head, "format": 1}),
        "deep": b'{"state":' * 1000,
    }


def test_a_head_that_contradicts_itself_is_not_believed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    history_of(store, 3)
    expected = truth(store)
    index = told(store, INDEX)
    for name, lie in lies(json.loads(told(store, HEAD))).items():
        caplog.clear()
        store.put(HEAD, lie)
        store.put(INDEX, lie + b"\n" + index.split(b"\n")[1])
        assert History(store, "m").state() == expected, name
        assert History(store, "m").head() == expected, name
        assert "is ignored" in caplog.text, name
    store.delete(HEAD)
    store.delete(INDEX)
    assert History(store, "m").state() == expected


def test_an_index_with_other_versions_is_not_believed(store: Store) -> None:
    append(store, publish("1.0.0"), publish("1.0.1"))
    expected, index = truth(store), told(store, INDEX)
    lines = index.split(b"\n")
    for lie in (lines[:2], [*lines, lines[1]], [lines[0], lines[2], lines[1]], [lines[0]], [*lines, b""]):
        store.put(INDEX, b"\n".join(lie))
        assert History(store, "m").state() == expected
    store.put(INDEX, index.replace(b'"size":3', b'"size":4'))
    assert History(store, "m").state() == expected


def forged(store: Store) -> tuple[bytes, bytes]:
    """A head and an index, consistent in themselves, of a log that was never written: production moved."""
    state = fold(History(store, "m").entries()[:-1], ModelState("m"))
    details = {"alias": "production", "version": "1.0.0", "expected": None}
    stamp = {"actor": "mallory", "at": "2026-01-01T00:00:00+00:00", "reason": ""}
    after = next_state(state, "alias", details, stamp)
    common = {"model": "m", "seq": after.seq, "prev": state.entry, "state": state_digest(after), "nonce": "x"}
    data = encode_entry({**common, "op": "alias", **stamp, **details})
    head = encode_head(after, data)
    assert parse_head(head, "m").state.entry == digest_of(data)
    assert parse_index(encode_index(head, after), "m")
    return head, encode_index(head, after)


def test_a_forged_hint_ends_with_the_next_entry_and_never_enters_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    history_of(store, 3)
    head, index = forged(store)
    store.put(HEAD, head)
    store.put(INDEX, index)
    # Who may write here could as well append an entry; a reader without memory takes it.
    assert "production" in History(store, "m").head().aliases
    # But the log does not have it, and says so.
    assert "production" not in truth(store).aliases
    assert "does not agree with the log" in caplog.text
    append(store, alias("later"))
    assert History(store, "m").state() == truth(store)
    assert set(History(store, "m").head().aliases) == {"a0x", "a1x", "later"}


def test_a_forged_hint_below_a_later_entry_is_ignored(store: Store) -> None:
    history_of(store, 3)
    head, index = forged(store)
    append(store, alias("later"))
    expected = truth(store)
    store.put(HEAD, head)
    store.put(INDEX, index)
    assert History(store, "m").state() == expected
    assert History(store, "m").head() == expected


def test_a_writer_repairs_both_hints(store: Store) -> None:
    history_of(store, 2)
    store.put(HEAD, b"garbage")
    store.put(INDEX, b"garbage")
    append(store, alias("later"))
    assert parse_head(told(store, HEAD), "m").state.seq == 3
    assert parse_index(told(store, INDEX), "m")[0].state.seq == 3


def test_an_entry_that_promises_another_state_is_corrupt(store: Store) -> None:
    append(store, publish("1.0.0"))
    value = {**json.loads(told(store, entry_key("m", 1))), "state": "sha256:" + "00" * 32}
    for key in (HEAD, INDEX):
        store.delete(key)
    store.put(entry_key("m", 1), canonical(value))
    with pytest.raises(CorruptError, match="promises another state"):
        History(store, "m").state()


def test_an_altered_entry_is_found(folder_registry: Registry, bundle: Path, tmp_path: Path) -> None:
    folder_registry.publish(bundle, "m", lineage={}, alias="candidate")
    path = tmp_path / "store" / entry_key("m", 1)
    path.write_bytes(path.read_bytes().replace(b'"alice"', b'"mallo"'))
    with pytest.raises(CorruptError, match="forked or altered"):
        folder_registry.log("m")
    (tmp_path / "store" / HEAD).unlink()
    (tmp_path / "store" / INDEX).unlink()
    with pytest.raises(CorruptError):
        folder_registry.load("m")


def test_the_last_entries_alone(store: Store) -> None:
    history_of(store, 6)
    entries = History(store, "m").entries()
    recorded = RecordingStore(store)
    assert Registry(recorded).log("m", last=2) == entries[-2:]
    assert len(recorded.calls) < 10
    assert Registry(store).log("m", last=99) == entries
    with pytest.raises(NotFoundError):
        Registry(store).log("n", last=2)


def test_the_last_entries_are_a_chain_too(store: Store) -> None:
    history_of(store, 6)
    value = json.loads(told(store, entry_key("m", 5)))
    store.put(entry_key("m", 5), canonical({**value, "actor": "mallory"}))
    with pytest.raises(CorruptError, match="forked or altered"):
        Registry(store).log("m", last=3)
