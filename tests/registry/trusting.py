"""Keys and policies for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slm_registry.trust.keys import PrivateKey, PublicKey, new_key, read_private


@dataclass(frozen=True)
class Pair:
    """A pair of keys, and the files that hold it."""

    private: Path
    public: Path

    @property
    def key(self) -> PrivateKey:
        return read_private(self.private)

    @property
    def shown(self) -> PublicKey:
        return self.key.public


def make_pair(folder: Path, name: str) -> Pair:
    folder.mkdir(exist_ok=True)
    return Pair(*new_key(name, folder))


def write_policy(path: Path, pairs: Sequence[Pair], *rules: str) -> Path:
    """A policy that names the pairs; each rule is the lines of its table."""
    lines = ["format = 1", "[keys]", *(f'{pair.shown.name} = "{pair.shown.line}"' for pair in pairs)]
    path.write_text("\n".join([*lines, *(f"[[rules]]\n{rule}" for rule in rules)]) + "\n")
    return path
