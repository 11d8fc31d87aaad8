"""The log: entries read back, anything else is refused, and the fold is a pure function of one unbroken chain."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slm_registry import CorruptError
from slm_registry.bundles.manifest import MAX_SIZE
from slm_registry.log.entries import Entry, encode_entry, parse_entry
from slm_registry.log.hints import complete, encode_head, encode_index, parse_head, parse_index
from slm_registry.log.state import MAX_TRAIL, ModelState, fold, next_state, state_digest
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import canonical

DIGEST = "sha256:" + "ab" * 32
STAMP = {"actor": "alice", "at": "2026-01-01T00:00:00+00:00", "reason": ""}
FACTS = {"task": "t", "metrics": {"accuracy": 0.5}, "labels": ["é"], "label_count": 1, "lineage": {"git": "0" * 40}}
VERSIONS = st.sampled_from(["1.0.0", "1.0.1", "2.0.0", "10.0.0"])
PUBLISH = st.builds(
    lambda version, facts: ("publish", {"version": version, "manifest": DIGEST, "size": 3, "facts": facts}),
    VERSIONS,
    st.sampled_from([{}, FACTS]),
)
# "?" stands for where the alias is when its turn comes, so that most moves are possible.
ALIAS = st.builds(
    lambda op, alias, version, expected: (op, {"alias": alias, "version": version, "expected": expected}),
    st.sampled_from(["alias", "promote"]),
    st.sampled_from(["candidate", "production"]),
    VERSIONS,
    st.sampled_from(["?", "?", "?", None, "1.0.0"]),
)
MARK = st.builds(
    lambda op, version: (op, {"version": version}),
    st.sampled_from(["yank", "unyank", "deprecate", "undeprecate"]),
    VERSIONS,
)
OPERATIONS = st.lists(PUBLISH | ALIAS | MARK, max_size=16)


def fields(state: ModelState, operation: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    op, details = operation
    if details.get("expected") == "?":
        held = state.aliases.get(details["alias"])
        details = {**details, "expected": held.version if held else None}
    if op == "promote":
        details = {**details, "evaluation": DIGEST, "policy": DIGEST}
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


class Oracle:
    """What a log means, in a few words: dictionaries, sets, and a list of places for each alias."""

    def __init__(self, entries: list[Entry]) -> None:
        self.versions: dict[str, str] = {}
        self.places: dict[str, list[str]] = {}
        self.marked: dict[str, set[str]] = {"yank": set(), "deprecate": set()}
        for entry in entries:
            self.apply(entry.op, entry.details)

    def apply(self, op: str, details: Mapping[str, Any]) -> None:
        version = details["version"]
        if op == "publish":
            self.versions[version] = details["manifest"]
        elif op in ("alias", "promote"):
            places = self.places.setdefault(details["alias"], [])
            if version in places:
                del places[places.index(version) :]
            places.append(version)
        elif op.startswith("un"):
            self.marked[op.removeprefix("un")].remove(version)
        else:
            self.marked[op].add(version)


@given(OPERATIONS, st.integers(0, 16))
def test_the_fold_is_what_a_dictionary_would_be_from_any_point_on(operations: list[Any], cut: int) -> None:
    steps = list(chain(operations))
    entries = [entry for entry, _ in steps]
    state = fold(entries, ModelState("m"))
    oracle = Oracle(entries)
    assert {name: version.manifest for name, version in state.versions.items()} == oracle.versions
    assert {name: [*alias.trail, alias.version] for name, alias in state.aliases.items()} == oracle.places
    assert {name for name, version in state.versions.items() if version.yanked} == oracle.marked["yank"]
    assert {name for name, version in state.versions.items() if version.deprecated} == oracle.marked["deprecate"]
    assert state.seq == len(entries)
    middle = steps[min(cut, len(steps)) - 1][1] if min(cut, len(steps)) else ModelState("m")
    assert fold(entries[cut:], middle) == state


@given(OPERATIONS)
def test_no_alias_ever_points_at_a_yanked_version(operations: list[Any]) -> None:
    for _, state in chain(operations):
        assert not any(state.versions[alias.version].yanked for alias in state.aliases.values())
        newest = state.newest()
        assert newest is None or state.versions[newest].yanked is None


@given(OPERATIONS)
def test_hints_read_back(operations: list[Any]) -> None:
    state = ModelState("m")
    for operation in operations:
        try:
            data = encode_entry(fields(state, operation))
        except CorruptError:
            continue
        state = fold([parse_entry(data, "m", state.seq + 1, "entry")], state)
        head = encode_head(state, data)
        hint, table = parse_index(encode_index(head, state), "m")
        assert complete(hint, table) == state
        small = parse_head(head, "m").state
        assert (small.aliases, small.newest(), small.highest()) == (state.aliases, state.newest(), state.highest())
        assert small.versions.items() <= state.versions.items()


def test_a_trail_is_bounded() -> None:
    names = [f"1.0.{number}" for number in range(MAX_TRAIL + 4)]
    publish = [("publish", {"version": name, "manifest": DIGEST, "size": 1, "facts": {}}) for name in names]
    moves = [("alias", {"alias": "a", "version": name, "expected": "?"}) for name in names]
    state = list(chain([*publish, *moves]))[-1][1]
    assert state.aliases["a"].trail == tuple(names[-MAX_TRAIL - 1 : -1])


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


FIRST = ("publish", {"version": "1.0.0", "manifest": DIGEST, "size": 3, "facts": FACTS})


def first_entry(**changes: Any) -> bytes:
    value = {**fields(ModelState("m"), FIRST), **changes}
    return canonical({"format": 2, **value})


def test_the_first_entry_is_read() -> None:
    entry = parse_entry(first_entry(), "m", 1, "entry")
    assert (entry.op, entry.details["version"], entry.prev) == ("publish", "1.0.0", None)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": 3}, "format 3 is unknown"),
        ({"format": 1}, "facts are missing or not expected"),
        ({"format": 1, "op": "yank"}, "operation 'yank' is unknown"),
        ({"format": True}, "format True is unknown"),
        ({"facts": {"task": 1}}, "facts"),
        ({"facts": {**FACTS, "metrics": {"a": "b"}}}, "metrics"),
        ({"facts": {**FACTS, "metrics": {"a": 10**400}}}, "metrics"),
        ({"facts": {**FACTS, "labels": ["x"] * 300}}, "labels"),
        ({"facts": {**FACTS, "label_count": 0}}, "number of labels"),
        ({"facts": {**FACTS, "lineage": {"git": None}}}, "lineage"),
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
        ({"size": 10**400}, "malformed"),
        ({"size": MAX_SIZE + 1}, "malformed"),
        ({"version": "1.0"}, "version"),
        ({"version": None}, "'version' holds NoneType"),
        ({"actor": "x" * 5000}, "longer than"),
        ({"extra": 1}, "extra"),
    ],
)
def test_what_is_no_entry(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CorruptError, match=complaint):
        parse_entry(first_entry(**changes), "m", 1, "entry")


def test_sizes_and_numbers_in_a_hint_are_bounded() -> None:
    entry = parse_entry(first_entry(), "m", 1, "entry")
    for size in (MAX_SIZE, MAX_SIZE + 1, 10**400):
        state = next_state(ModelState("m"), "publish", {**entry.details, "size": size}, STAMP)
        last = first_entry(state=state_digest(state))
        head = encode_head(replace(state, entry=digest_of(last)), last)
        if size == MAX_SIZE:
            assert complete(*parse_index(encode_index(head, state), "m")).versions == state.versions
            assert parse_head(head, "m").state.versions == state.versions
            continue
        with pytest.raises(CorruptError, match="is no count"):
            parse_head(head, "m")


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
        parse_index(data if len(data) < 1 << 20 else b"", "m")


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
        parse_index(data, "m")


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


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60))
def test_the_fold_of_a_long_log_is_linear_in_spirit(count: int) -> None:
    operations = [
        ("publish", {"version": f"1.0.{number}", "manifest": DIGEST, "size": 1, "facts": {}}) for number in range(count)
    ]
    steps = list(chain(operations))
    assert len(steps) == count
    assert steps[-1][1].newest() == f"1.0.{count - 1}"
