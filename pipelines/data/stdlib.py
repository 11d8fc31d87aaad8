"""Data that every machine has: the functions of Python's own standard library, split by file, its tests left out.

    python -m pipelines.data.stdlib OUT

writes OUT/functions/{train,validation,test}.jsonl (column text: a function's source) and OUT/docstrings/ with the same
files (text: a function without its docstring; target: the docstring's first line).
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import sys
import sysconfig
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import DataError

#: Folders that hold tests, demonstrations or other people's code.
LEFT_OUT = {
    "test",
    "tests",
    "idle_test",
    "turtledemo",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "_vendor",
    "pydoc_data",
}
#: Shortest and longest function in characters: stubs teach nothing, and the longest are tables.
SHORTEST, LONGEST = 80, 3000
#: Shortest and longest first line of a docstring, in words.
FEWEST_WORDS, MOST_WORDS = 3, 25
#: Of 20 files, by digest of their path: how many go to validation and to test.
HELD = {"validation": range(2), "test": range(2, 4)}


@dataclass(frozen=True)
class Function:
    """One function: its source, the source without the docstring, and the docstring's first line (empty: none)."""

    source: str
    bare: str
    summary: str


def source_files(root: Path) -> Iterator[Path]:
    """Every module of a library that is no test, in order."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not any(part in LEFT_OUT or part.startswith("test_") for part in parts):
            yield path


def functions_of(text: str) -> Iterator[Function]:
    """The functions and methods of a module that are neither tiny nor huge; none where it is not this Python's syntax."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    lines = text.splitlines(keepends=True)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in sorted(nodes, key=lambda node: node.lineno):
        function = _function(node, lines)
        if SHORTEST <= len(function.source) <= LONGEST:
            yield function


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> Function:
    own = list(lines[node.lineno - 1 : node.end_lineno])
    source = textwrap.dedent("".join(own)).strip("\n")
    described = ast.get_docstring(node)
    if described is None or len(node.body) < 2:
        return Function(source, source, "")
    first = node.body[0]
    kept = own[: first.lineno - node.lineno] + own[(first.end_lineno or first.lineno) - node.lineno + 1 :]
    summary = " ".join(described.strip().split("\n\n")[0].split())
    return Function(source, textwrap.dedent("".join(kept)).strip("\n"), summary)


def split_of(module: str) -> str:
    """The split of a module, by its path inside the library: the same on every machine."""
    place = int.from_bytes(hashlib.sha256(module.encode()).digest()[:4], "big") % 20
    return next((split for split, places in HELD.items() if place in places), "train")


def collect(root: Path, out: Path) -> dict[str, int]:
    """Write both data sets; rows by file written. Raises DataError where the library has no sources."""
    functions: dict[str, list[dict[str, str]]] = {split: [] for split in ("train", *HELD)}
    docstrings: dict[str, list[dict[str, str]]] = {split: [] for split in functions}
    for path in source_files(root):
        split = split_of(path.relative_to(root).as_posix())
        for function in functions_of(path.read_bytes().decode("utf-8", "ignore")):
            functions[split].append({"text": function.source})
            if FEWEST_WORDS <= len(function.summary.split()) <= MOST_WORDS:
                docstrings[split].append({"text": function.bare, "target": function.summary})
    if not functions["train"]:
        raise DataError(f"{root}: this Python has no sources of its standard library; install the full package")
    counts = {}
    for name, rows in (("functions", functions), ("docstrings", docstrings)):
        for split, own in rows.items():
            path = out / name / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own), encoding="utf-8")
            counts[f"{name}/{split}"] = len(own)
    (out / "PYTHON").write_text(f"{platform.python_implementation()} {platform.python_version()}\n", encoding="utf-8")
    return counts


def main(argv: Sequence[str]) -> int:
    """Write the data sets of this Python's library into the folder argv[0]."""
    if len(argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    for name, rows in collect(Path(sysconfig.get_paths()["stdlib"]), Path(argv[0])).items():
        print(f"{name}: {rows} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
