from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError, ModelError
from pipelines.token_signals import Kind, SampledRows, TopKRows, read_token_signals, reading
from pipelines.token_signals.coding import PROBABILITY_ERROR
from tests.token_examples import FACTS, example_of, files_of, write


@given(
    kind=st.sampled_from(["top_k", "sampled"]),
    k=st.integers(1, 40),
    vocabulary=st.sampled_from([60, 65_536, 70_000]),
    shard_bytes=st.integers(1, 3000),
    asked=st.lists(st.integers(0, 11), max_size=15),
)
@settings(max_examples=40, deadline=None)
def test_what_is_read_is_what_was_written(
    kind: Kind, k: int, vocabulary: int, shard_bytes: int, asked: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 12, kind=kind, k=k, vocabulary=vocabulary, shard_bytes=shard_bytes)
        signals = read_token_signals(Path(folder))
        assert len(signals) == 12
        read, given_rows = signals.rows(asked), [example_of(number, kind, k, vocabulary)[1] for number in asked]
        assert [signals.predictions(number) for number in asked] == [len(rows.ids) for rows in given_rows]
        for number in asked:
            assert np.array_equal(signals.tokens(number), example_of(number, kind, k, vocabulary)[0])
    if not asked:
        assert len(read.ids) == 0
    elif isinstance(read, TopKRows):
        theirs = np.concatenate([rows.log_probs for rows in given_rows if isinstance(rows, TopKRows)])
        assert np.array_equal(read.ids, np.concatenate([rows.ids for rows in given_rows]))
        assert np.abs(np.exp(read.log_probs) - np.exp(theirs)).max(initial=0) <= PROBABILITY_ERROR
    else:
        width = read.ids.shape[1]
        assert np.array_equal(read.ids, np.concatenate([rows.ids[:, :width] for rows in given_rows]))
        theirs = np.concatenate([rows.counts for rows in given_rows if isinstance(rows, SampledRows)])
        assert np.array_equal(read.counts, theirs[:, :width]) and not theirs[:, width:].any()


def test_the_store_says_whose_signals_it_holds(tmp_path: Path) -> None:
    signals = read_token_signals(write(tmp_path, 3))
    assert (signals.kind, signals.k, signals.vocabulary, signals.facts) == ("top_k", 4, 50, FACTS)


def test_columns_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    signals = read_token_signals(write(tmp_path, 30, shard_bytes=1 << 20))
    mapped, place = signals._find(29)
    for column in mapped.columns(place):
        base = column
        while isinstance(base, np.ndarray):
            base = base.base
        assert type(base).__name__ == "mmap"


def test_more_shards_than_are_mapped_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAPPED_SHARDS", 2)
    signals = read_token_signals(write(tmp_path, 12, shard_bytes=1))
    for number in [*range(12), 0, 11, 0]:
        assert np.array_equal(signals.tokens(number), example_of(number)[0])
        assert len(signals._mapped) <= 2


@pytest.mark.parametrize("number", [-1, 12])
def test_an_example_that_is_not_stored_is_named(tmp_path: Path, number: int) -> None:
    with pytest.raises(DataError, match=f"no example {number}, signals of 12 are stored"):
        read_token_signals(write(tmp_path, 12)).rows([0, number])


@pytest.mark.parametrize("changed", ["value", "shorter", "longer"])
def test_another_encoding_of_an_example_is_named(tmp_path: Path, changed: str) -> None:
    signals, tokens = read_token_signals(write(tmp_path, 12)), example_of(5)[0]
    signals.check_tokens(5, tokens)
    signals.check_tokens(5, tokens.tolist())
    ours = {
        "value": [*tokens[:-1], tokens[-1] + 1],
        "shorter": tokens[:-1],
        "longer": [*tokens, 1],
    }[changed]
    at = len(tokens) if changed == "longer" else len(tokens) - 1
    with pytest.raises(ModelError, match=f"example 5 is not encoded as the teacher saw it: at token {at} stands"):
        signals.check_tokens(5, ours)


@pytest.mark.parametrize("place", [0, 0.3, 0.6, 0.999])
def test_an_altered_shard_is_found_when_it_is_read(tmp_path: Path, place: float) -> None:
    shard = write(tmp_path, 30) / "shard-00001.bin"
    content = bytearray(shard.read_bytes())
    content[int(place * len(content))] ^= 4
    shard.write_bytes(content)
    signals = read_token_signals(tmp_path)
    signals.rows([0])
    with pytest.raises(DataError, match=r"shard-00001\.bin: the shard of stored signals is damaged; delete .* label"):
        signals.rows(range(30))


@pytest.mark.parametrize("damage", ["cut", "grown", "missing"])
def test_a_cut_or_missing_shard_is_found_when_the_store_is_opened(tmp_path: Path, damage: str) -> None:
    shard = write(tmp_path, 30) / "shard-00002.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] if damage == "cut" else content + b"\0")
    if damage == "missing":
        shard.unlink()
    with pytest.raises(DataError, match=r"shard-00002\.bin: the shard of stored signals (has \d+ bytes|is missing)"):
        read_token_signals(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_shard_that_goes_after_the_store_was_opened_is_named(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was read before, and is mapped a second time."""
    monkeypatch.setattr(reading, "MAPPED_SHARDS", 1)
    signals = read_token_signals(write(tmp_path, 30))
    signals.rows(range(30))
    shard = tmp_path / "shard-00002.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    if damage == "missing":
        shard.unlink()
    with pytest.raises(DataError, match=r"shard-00002\.bin: the shard of stored signals (has \d+ bytes|is missing)"):
        signals.rows(range(30))


def test_an_index_that_is_none_is_named(tmp_path: Path) -> None:
    index = write(tmp_path, 5) / "index.json"
    value = json.loads(index.read_text())
    for broken in ({**value, "shards": [{"file": "x"}]}, {"shards": []}, []):
        index.write_text(json.dumps(broken))
        with pytest.raises(DataError, match=r"index\.json: not the index of token signals"):
            read_token_signals(tmp_path)
    index.write_text(json.dumps({**value, "format": 2}))
    with pytest.raises(DataError, match=r"index\.json: of format 2, read is 1"):
        read_token_signals(tmp_path)
    index.write_text(json.dumps(value)[:-5])
    with pytest.raises(ModelError, match=r"index\.json: not valid JSON"):
        read_token_signals(tmp_path)


def test_equal_examples_are_equal_bytes(tmp_path: Path) -> None:
    assert files_of(write(tmp_path / "one", 20)) == files_of(write(tmp_path / "two", 20))
