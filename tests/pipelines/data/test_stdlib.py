from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.data.stdlib import HELD, collect, functions_of, main, source_files, split_of
from pipelines.errors import DataError

MODULE = '''
import os


class Reader:
    """A class."""

    def read(self, path, encoding="utf-8", errors="strict"):
        """Read a whole file as text.

        More words that are no summary.
        """
        with open(path, encoding=encoding, errors=errors) as file:
            return file.read()

    def tiny(self):
        return 1


async def fetch(session, address, seconds=10, headers=None):
    answer = await session.get(address, timeout=seconds, headers=headers)
    return await answer.text()
'''


def test_functions_with_and_without_their_docstring() -> None:
    read, fetch = functions_of(MODULE)
    assert read.source.startswith("def read(self, path") and read.source.endswith("return file.read()")
    assert read.summary == "Read a whole file as text."
    assert '"""' not in read.bare and read.bare.startswith("def read(") and "with open(path" in read.bare
    assert fetch.source == fetch.bare and fetch.summary == ""


def test_what_is_not_this_pythons_syntax_is_left_out() -> None:
    assert list(functions_of("def broken(:")) == []
    assert list(functions_of("x = 1\x00")) == []


def library(root: Path, modules: int) -> Path:
    for number in range(modules):
        path = root / f"package{number % 5}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MODULE.replace("whole file", f"whole file {number}"))
    (root / "package0" / "test").mkdir()
    (root / "package0" / "test" / "test_it.py").write_text(MODULE)
    (root / "package0" / "test_more.py").write_text(MODULE)
    return root


def test_tests_are_left_out_and_files_are_split_whole(tmp_path: Path) -> None:
    root = library(tmp_path / "lib", 60)
    assert len(list(source_files(root))) == 60
    counts = collect(root, tmp_path / "out")
    assert sum(counts[f"functions/{split}"] for split in ("train", *HELD)) == 120
    rows = {
        split: [
            json.loads(line) for line in (tmp_path / "out" / "docstrings" / f"{split}.jsonl").read_text().splitlines()
        ]
        for split in ("train", *HELD)
    }
    assert sum(map(len, rows.values())) == 60
    assert all(set(row) == {"text", "target"} for split in rows.values() for row in split)
    for number in range(60):
        split = split_of(f"package{number % 5}/module{number}.py")
        assert sum(row["target"] == f"Read a whole file {number} as text." for row in rows[split]) == 1


def test_the_split_of_a_module_depends_on_its_path_alone() -> None:
    places = [split_of(f"package/module{number}.py") for number in range(2000)]
    assert places == [split_of(f"package/module{number}.py") for number in range(2000)]
    assert 0.75 < places.count("train") / 2000 < 0.85
    assert 0.07 < places.count("test") / 2000 < 0.13


def test_the_same_library_gives_the_same_bytes(tmp_path: Path) -> None:
    root = library(tmp_path / "lib", 20)
    collect(root, tmp_path / "one")
    collect(root, tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 7
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_a_python_without_sources_is_named(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    with pytest.raises(DataError, match="no sources of its standard library"):
        collect(tmp_path / "lib", tmp_path / "out")


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "pipelines.data.stdlib OUT" in capsys.readouterr().err
