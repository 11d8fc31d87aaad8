from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.environment import ROOT
from pipelines.errors import DataError, ModelError, ResourceError
from pipelines.token_signals import Kind, TokenSignalsWriter, bytes_per_prediction, read_token_signals
from pipelines.token_signals.coding import id_bytes
from tests.token_examples import FACTS, example_of, files_of, write

EXAMPLES = 40


def child(folder: Path, pause: float = 0, die: int = 0) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'registry'}"}
    command = [sys.executable, "-m", "tests.token_examples", str(folder), str(EXAMPLES), str(pause), str(die)]
    return subprocess.Popen(command, env=env, cwd=ROOT)


def shards_in(folder: Path) -> int:
    index = folder / "index.json"
    return len(json.loads(index.read_text())["shards"]) if index.is_file() else 0


def test_killed_in_the_middle_and_started_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    undisturbed = files_of(write(tmp_path / "undisturbed", EXAMPLES))
    with child(tmp_path / "killed", pause=0.1) as process:
        deadline = time.monotonic() + 60
        while shards_in(tmp_path / "killed") < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 3 <= shards_in(tmp_path / "killed") < len(undisturbed) - 1
    with pytest.raises(DataError, match=r"the teacher's run ended after \d+ examples; label again to go on"):
        read_token_signals(tmp_path / "killed")
    assert files_of(write(tmp_path / "killed", EXAMPLES)) == undisturbed


@pytest.mark.parametrize("rename", [1, 2, 3, 4, 8])
def test_killed_at_a_rename_nothing_half_done_stays(tmp_path: Path, rename: int) -> None:
    """Odd renames put a shard in its place, even ones the index that names it."""
    with child(tmp_path / "killed", die=rename) as process:
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert any(path.suffix == ".partial" for path in (tmp_path / "killed").iterdir())
    assert shards_in(tmp_path / "killed") == (rename - 1) // 2
    assert files_of(write(tmp_path / "killed", EXAMPLES)) == files_of(write(tmp_path / "undisturbed", EXAMPLES))


def test_an_error_keeps_the_whole_shards_and_leaves_the_store_unfinished(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with TokenSignalsWriter(
            tmp_path / "s", kind="top_k", k=4, vocabulary=50, facts=FACTS, shard_bytes=600
        ) as writer:
            for number in range(20):
                writer.append(number, *example_of(number))
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        write_and_fail()
    assert shards_in(tmp_path / "s") > 0
    with TokenSignalsWriter(tmp_path / "s", kind="top_k", k=4, vocabulary=50, facts=FACTS, shard_bytes=600) as writer:
        assert 0 < writer.written < 20
        for number in range(writer.written, EXAMPLES):
            writer.append(number, *example_of(number))
    assert files_of(tmp_path / "s") == files_of(write(tmp_path / "undisturbed", EXAMPLES))


def test_a_finished_store_is_left_as_it_is_and_takes_no_more(tmp_path: Path) -> None:
    before = files_of(write(tmp_path / "s", EXAMPLES))
    assert files_of(write(tmp_path / "s", EXAMPLES)) == before
    with pytest.raises(DataError, match=r"complete with 40 examples; delete .* and label again"):
        write(tmp_path / "s", EXAMPLES + 1)
    assert files_of(tmp_path / "s") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts": FACTS | {"teacher_sha256": "00"}}, f"teacher_sha256 '{'ab' * 32}' \\(now '00'\\)"),
        ({"facts": FACTS | {"draft": True}}, r"draft None \(now True\)"),
        ({"k": 5}, r"k 4 \(now 5\)"),
        ({"kind": "sampled"}, r"kind 'top_k' \(now 'sampled'\)"),
        ({"vocabulary": 51}, r"vocabulary 50 \(now 51\)"),
        ({"shard_bytes": 601}, r"shard_bytes 600 \(now 601\)"),
    ],
)
def test_signals_of_other_facts_are_never_mixed(tmp_path: Path, change: dict[str, object], message: str) -> None:
    before = files_of(write(tmp_path / "s", EXAMPLES))
    with pytest.raises(DataError, match=f"holds signals of {message}; delete the folder to label anew"):
        write(tmp_path / "s", EXAMPLES, **change)
    assert files_of(tmp_path / "s") == before


def test_facts_are_compared_as_they_are_stored(tmp_path: Path) -> None:
    write(tmp_path / "s", 3, facts=FACTS | {"layers": (1, 2)})
    write(tmp_path / "s", 3, facts=FACTS | {"layers": (1, 2)})


def test_a_damaged_shard_stops_a_run_that_would_go_on(tmp_path: Path) -> None:
    shard = write(tmp_path / "s", EXAMPLES) / "shard-00001.bin"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-00001\.bin: the shard of stored signals is damaged; delete"):
        write(tmp_path / "s", EXAMPLES)


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    settings = {"kind": "top_k", "k": 4, "vocabulary": 50, "facts": FACTS}
    refused = pytest.raises(ResourceError, match="another process writes signals there")
    with TokenSignalsWriter(tmp_path, **settings), refused:  # type: ignore[arg-type]
        TokenSignalsWriter(tmp_path, **settings)  # type: ignore[arg-type]
    write(tmp_path / "free", 2)
    write(tmp_path / "free", 2)


def test_examples_come_in_order_and_a_bad_one_is_named(tmp_path: Path) -> None:
    with TokenSignalsWriter(tmp_path, kind="top_k", k=4, vocabulary=50, facts={}) as writer:
        tokens, rows = example_of(0)
        with pytest.raises(ModelError, match="example 1 does not follow the 0 stored ones"):
            writer.append(1, tokens, rows)
        with pytest.raises(ModelError, match=r"example 0: .* cannot be stored: id 50 stands outside"):
            writer.append(0, np.array([50]), rows)
        assert writer.written == 0


def test_shards_are_bounded_and_hold_whole_examples(tmp_path: Path) -> None:
    sizes = [len(content) for name, content in files_of(write(tmp_path / "s", EXAMPLES)).items() if "shard" in name]
    assert len(sizes) > 5 and max(sizes) <= 600
    alone = files_of(write(tmp_path / "alone", EXAMPLES, shard_bytes=1))
    assert len(alone) == EXAMPLES + 1


@pytest.mark.parametrize("kind", ["top_k", "sampled"])
@pytest.mark.parametrize("k", [8, 32, 64])
@pytest.mark.parametrize("vocabulary", [300, 65_536, 65_537])
def test_the_stated_bytes_are_those_on_disk(tmp_path: Path, kind: Kind, k: int, vocabulary: int) -> None:
    folder = write(tmp_path / "s", EXAMPLES, kind=kind, k=k, vocabulary=vocabulary)
    signals = read_token_signals(folder)
    examples = [example_of(number, kind, k, vocabulary) for number in range(EXAMPLES)]
    predictions = sum(len(rows.ids) for _, rows in examples)
    tokens = sum(len(ids) for ids, _ in examples)
    distinct = (signals.rows(range(EXAMPLES)).counts > 0).sum() / predictions if kind == "sampled" else None  # type: ignore[union-attr]
    each = bytes_per_prediction(kind, k, vocabulary, distinct)
    on_disk = sum(len(content) for name, content in files_of(folder).items() if "shard" in name)
    assert on_disk == pytest.approx(each * predictions + id_bytes(vocabulary) * tokens + 12 * EXAMPLES)
    assert each <= bytes_per_prediction(kind, k, vocabulary)
