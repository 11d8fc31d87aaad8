"""Logs of past formats, their bytes frozen: they must be read for ever, and go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from slm_registry import CorruptError, Registry
from slm_registry.log.entries import entry_key
from slm_registry.log.history import History
from slm_registry.stores.base import Store

FROZEN = Path(__file__).with_name("frozen")
LINES = (FROZEN / "format1.jsonl").read_bytes().splitlines()
MOVES = [
    ("publish", "1.0.0"),
    ("alias", "1.0.0"),
    ("alias", "1.0.0"),
    ("publish", "1.1.0"),
    ("alias", "1.1.0"),
    ("alias", "1.1.0"),
]


@pytest.fixture
def old(store: Store) -> Store:
    """A store with a model that the first release wrote, its head included."""
    for number, line in enumerate(LINES, start=1):
        assert store.create(entry_key("m", number), line)
    store.put("models/m/head.json", (FROZEN / "format1-head.json").read_bytes())
    return store


def test_a_log_of_format_1_is_read(old: Store) -> None:
    entries = Registry(old).log("m")
    assert [(entry.op, entry.details["version"]) for entry in entries] == MOVES
    assert {entry.format for entry in entries} == {1}
    assert entries[2].reason == "première"
    state = History(old, "m").state()
    assert {name: alias.version for name, alias in state.aliases.items()} == {
        "candidate": "1.1.0",
        "production": "1.1.0",
    }
    assert state.versions["1.0.0"].size == 1363
    assert Registry(old).resolve("m").version == "1.1.0"
    assert [row.facts for row in Registry(old).search("m", size="<2kB")] == [{}, {}]
    assert Registry(old).search("m", task="text-classification") == ()


def test_it_goes_on_in_the_present_format(old: Store, bundle: Path, tmp_path: Path) -> None:
    registry = Registry(old, cache=tmp_path / "cache", actor="carol")
    assert registry.rollback("m", "production", expected="1.1.0").version == "1.0.0"
    registry.alias("m", "candidate", "1.0.0")
    assert registry.yank("m", "1.1.0", reason="wrong labels")
    registry.publish(bundle, "m", version="1.2.0", lineage={})
    assert [entry.format for entry in registry.log("m")] == [1] * 6 + [2] * 4
    state = History(old, "m").state()
    assert state.seq == 10
    assert History(old, "m").head().aliases == state.aliases


def test_an_altered_state_or_chain_of_format_1_is_corrupt(store: Store) -> None:
    first = LINES[0].replace(b'"state":"sha256:b', b'"state":"sha256:c')
    assert first != LINES[0]
    store.put(entry_key("m", 1), first)
    with pytest.raises(CorruptError, match="promises another state"):
        History(store, "m").state()
    store.put(entry_key("m", 2), LINES[1])
    with pytest.raises(CorruptError, match="forked or altered"):
        History(store, "m").state()
