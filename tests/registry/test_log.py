"""The log: entries read back, anything else is refused, and the fold is a pure function of one unbroken chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slm_registry import CorruptError, Registry
from slm_registry.entries import Entry, encode_entry, entry_key, parse_entry
from slm_registry.hints import parse_head
from slm_registry.history import History, Operation
from slm_registry.jsonio import canonical
from slm_registry.log import ModelState, fold, next_state, state_digest
from slm_registry.stores import Store

from tests.registry.recording import RecordingStore

DIGEST = "sha256:" + "ab" * 32
STAMP = {"actor": "alice", "at": "2026-01-01T00:00:00+00:00", "reason": ""}
VERSIONS = st.sampled_from(["1.0.0", "1.0.1", "2.0.0", "10.0.0"])
PUBLISH = st.builds(lambda version: ("publish", {"version": version, "manifest": DIGEST, "size": 3}), VERSIONS)
ALIAS = st.builds(
    lambda alias, version, expected: ("alias", {"alias": alias, "version": version, "expected": expected}),
    st.sampled_from(["candidate", "production"]),
    VERSIONS,
    st.none() | VERSIONS,
)
OPERATIONS = st.lists(PUBLISH | ALIAS, max_size=12)


def fields(state: ModelState, operation: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    op, details = operation
    after = next_state(state, op, details, STAMP)
    common = {"model": state.model, "seq": after.seq, "prev": state.entry, "state": state_digest(after)}
    return {**common, "op": op, "nonce": "n", **STAMP, **details}


def chain(operations: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[Entry, ModelState]]:
    """The entries of those operations that are possible, each with the state after it."""
    state = ModelState("m")
    for operation in operations:
        try:
            data = encode_entry(fields(state, operation))
        except CorruptError:
            continue
        entry = parse_entry(data, "m", state.seq + 1, "entry")
        state = fold([entry], state)
        yield entry, state


def oracle(entries: list[Entry]) -> tuple[dict[str, str], dict[str, str]]:
    """What a log means, in a few words: dictionaries."""
    versions: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for entry in entries:
        if entry.op == "publish":
            versions[entry.details["version"]] = entry.details["manifest"]
        else:
            aliases[entry.details["alias"]] = entry.details["version"]
    return versions, aliases


@given(OPERATIONS, st.integers(0, 12))
def test_the_fold_is_what_a_dictionary_would_be_from_any_point_on(operations: list[Any], cut: int) -> None:
    steps = list(chain(operations))
    entries = [entry for entry, _ in steps]
    state = fold(entries, ModelState("m"))
    versions, aliases = oracle(entries)
    assert {name: version.manifest for name, version in state.versions.items()} == versions
    assert {name: alias.version for name, alias in state.aliases.items()} == aliases
    assert state.seq == len(entries)
    middle = steps[min(cut, len(steps)) - 1][1] if min(cut, len(steps)) else ModelState("m")
    assert fold(entries[cut:], middle) == state
    if entries:
        assert parse_head(encode_head(state), "m") == state


@given(OPERATIONS.filter(lambda operations: len(list(chain(operations))) > 1), st.data())
def test_a_log_with_an_entry_gone_moved_or_changed_is_no_log(operations: list[Any], data: st.DataObject) -> None:
    entries = [entry for entry, _ in chain(operations)]
    index = data.draw(st.integers(0, len(entries) - 2))
    changed = replace(entries[index], digest="sha256:" + "00" * 32)
    for broken in (
        entries[:index] + entries[index + 1 :],
        [*entries[:index], entries[index + 1], entries[index], *entries[index + 2 :]],
        [*entries[:index], changed, *entries[index + 1 :]],
        [*entries[:index], entries[index], *entries[index:]],
    ):
        with pytest.raises(CorruptError):
            fold(broken, ModelState("m"))


def first_entry(**changes: Any) -> bytes:
    value = {**fields(ModelState("m"), ("publish", {"version": "1.0.0", "manifest": DIGEST, "size": 3})), **changes}
    return canonical({"format": 1, **value})


def test_the_first_entry_is_read() -> None:
    entry = parse_entry(first_entry(), "m", 1, "entry")
    assert (entry.op, entry.details["version"], entry.prev) == ("publish", "1.0.0", None)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": 2}, "format 2 is unknown"),
        ({"format": True}, "format"),
        ({"op": "explode"}, "operation 'explode' is unknown"),
        ({"op": ["publish"]}, "is unknown"),
        ({"model": "other"}, "belongs to 'other'"),
        ({"seq": 2}, "number 2"),
        ({"seq": True}, "'seq' holds bool"),
        ({"seq": 1.0}, "'seq' holds float"),
        ({"prev": "x"}, "malformed"),
        ({"state": "x"}, "malformed"),
        ({"manifest": "../../etc/passwd"}, "malformed"),
        ({"size": -1}, "malformed"),
        ({"version": "1.0"}, "version"),
        ({"version": None}, "'version' holds NoneType"),
        ({"actor": "x" * 5000}, "longer than"),
        ({"extra": 1}, "extra"),
    ],
)
def test_what_is_no_entry(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CorruptError, match=complaint):
        parse_entry(first_entry(**changes), "m", 1, "entry")


def test_a_missing_field_is_named() -> None:
    value = json.loads(first_entry())
    del value["nonce"]
    with pytest.raises(CorruptError, match="nonce"):
        parse_entry(canonical(value), "m", 1, "entry")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe{}",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"a":' + b"[" * 100 + b"]" * 100 + b"}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a":"' + b"x" * (1 << 20) + b'"}',
        b'{"a":' + b"9" * 5000 + b"}",
    ],
    ids=range(14),
)
def test_hostile_json(data: bytes) -> None:
    with pytest.raises(CorruptError):
        parse_entry(data, "m", 1, "entry")
    with pytest.raises(CorruptError):
        parse_head(data if len(data) < 1 << 20 else b"", "m")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_entry_or_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError):
        parse_entry(data, "m", 1, "entry")
    with pytest.raises(CorruptError):
        parse_head(data, "m")


@given(st.sampled_from(sorted(json.loads(first_entry()))), JSON)
def test_any_value_in_any_field_is_an_entry_or_corrupt(key: str, value: Any) -> None:
    data = json.dumps({**json.loads(first_entry()), key: value}).encode()
    try:
        entry = parse_entry(data, "m", 1, "entry")
    except CorruptError:
        return
    assert getattr(entry, key, entry.details.get(key)) == value or key == "format"


@given(st.integers(0, len(first_entry()) - 1), st.integers(0, 7))
def test_a_flipped_bit_in_an_entry_breaks_the_chain(position: int, bit: int) -> None:
    data = bytearray(first_entry())
    data[position] ^= 1 << bit
    after = fold([parse_entry(first_entry(), "m", 1, "entry")], ModelState("m"))
    second = encode_entry(fields(after, ("alias", {"alias": "candidate", "version": "1.0.0", "expected": None})))
    with pytest.raises(CorruptError):
        entries = [parse_entry(bytes(data), "m", 1, "entry"), parse_entry(second, "m", 2, "entry")]
        fold(entries, ModelState("m"))


def always(operation: Operation) -> Callable[[ModelState], Operation]:
    return lambda state: operation


def history_of(store: Store, count: int) -> History:
    """A history with one version and `count - 1` moves of an alias."""
    history = History(store, "m")
    publish = Operation("publish", {"version": "1.0.0", "manifest": DIGEST, "size": 3})
    history.append(always(publish), actor="a", reason="")
    for number in range(count - 1):
        alias = Operation("alias", {"alias": f"a{number}x", "version": "1.0.0", "expected": None})
        history.append(always(alias), actor="a", reason="")
    return history


def test_a_fresh_hint_saves_the_walk(store: Store) -> None:
    recorded = RecordingStore(store)
    history = history_of(recorded, 6)
    recorded.calls.clear()
    assert history.state().seq == 6
    assert recorded.named("get") == [("models/m/head.json",), (entry_key("m", 6),), (entry_key("m", 7),)]


def test_an_old_hint_is_followed_to_the_end(store: Store) -> None:
    history = history_of(store, 2)
    old = store.get("models/m/head.json", 1 << 20)
    assert old is not None
    history = history_of_more(history)
    store.put("models/m/head.json", old)
    assert History(store, "m").state() == fold(history.entries(), ModelState("m"))
    assert History(store, "m").state().seq == 3


def history_of_more(history: History) -> History:
    alias = Operation("alias", {"alias": "later", "version": "1.0.0", "expected": None})
    history.append(always(alias), actor="a", reason="")
    return history


def lies(head: dict[str, Any]) -> dict[str, bytes]:
    """Hints that say another thing than the log."""
    state = head["state"]
    moved = {**state, "aliases": {**state["aliases"], "a0x": {**state["aliases"]["a0x"], "version": "6.6.6"}}}
    other = {**state, "versions": {"1.0.0": {**state["versions"]["1.0.0"], "manifest": "sha256:" + "66" * 32}}}
    return {
        "garbage": b"garbage",
        "empty": b"",
        "another alias": canonical({**head, "state": moved}),
        "another digest": canonical({**head, "state": other}),
        "another entry": canonical({**head, "entry": "sha256:" + "00" * 32}),
        "another model": canonical({**head, "state": {**state, "model": "x"}}),
        "a future number": canonical({**head, "state": {**state, "seq": 99}}),
        "an old number": canonical({**head, "state": {**state, "seq": 1}}),
        "number zero": canonical({**head, "state": {**state, "seq": 0}}),
        "wrong kinds": canonical({**head, "state": {**state, "versions": [1]}}),
        "deep": b'{"state":' * 1000,
    }


def test_a_lying_hint_is_not_believed(store: Store) -> None:
    truth = history_of(store, 3).state()
    data = store.get("models/m/head.json", 1 << 20)
    assert data is not None
    told = lies(json.loads(data))
    assert len(told) == 11
    for name, lie in told.items():
        store.put("models/m/head.json", lie)
        assert History(store, "m").state() == truth, name
    store.delete("models/m/head.json")
    assert History(store, "m").state() == truth


def test_a_writer_repairs_a_lying_hint(store: Store) -> None:
    history = history_of(store, 2)
    store.put("models/m/head.json", b"garbage")
    history_of_more(history)
    data = store.get("models/m/head.json", 1 << 20)
    assert data is not None
    assert parse_head(data, "m").seq == 3


def test_an_entry_that_promises_another_state_is_corrupt(store: Store) -> None:
    value = {**json.loads(first_entry()), "state": "sha256:" + "00" * 32}
    store.put(entry_key("m", 1), canonical(value))
    with pytest.raises(CorruptError, match="promises another state"):
        History(store, "m").state()


def test_an_altered_entry_is_found(folder_registry: Registry, bundle: Path, tmp_path: Path) -> None:
    folder_registry.publish(bundle, "m", lineage={}, alias="candidate")
    path = tmp_path / "store" / entry_key("m", 1)
    path.write_bytes(path.read_bytes().replace(b'"alice"', b'"mallo"'))
    with pytest.raises(CorruptError, match="forked or altered"):
        folder_registry.log("m")
    (tmp_path / "store" / "models" / "m" / "head.json").unlink()
    with pytest.raises(CorruptError):
        folder_registry.load("m")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60))
def test_the_fold_of_a_long_log_is_linear_in_spirit(count: int) -> None:
    operations = [("publish", {"version": f"1.0.{number}", "manifest": DIGEST, "size": 1}) for number in range(count)]
    steps = list(chain(operations))
    assert len(steps) == count
    assert steps[-1][1].newest() == f"1.0.{count - 1}"
