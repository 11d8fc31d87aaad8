"""BPE, over bytes (GPT-2, Llama 3, Qwen) or over characters with byte fallback (Llama 2, Mistral, Gemma)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from functools import cached_property
from itertools import pairwise
from typing import Any

from pipelines.errors import ModelError
from pipelines.techniques.vocabulary.pieces import BYTES, beyond_spelling, spelled_by_bytes

Merge = tuple[str, str]


class Bpe:
    """A token needs the merges that build it, and what they merge.

    Merges run by rank alone (Sennrich et al. 2016), and none crosses the borders of a finished token: inside them the
    same merges ran in the same order as on the token's own text. So these suffice, and fewer merges elsewhere change
    nothing.
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        if entry.get("dropout"):
            raise ModelError(
                f"tokenizer.json: BPE with dropout {entry['dropout']} cuts at random; set model.dropout to null"
            )
        self._entry = entry
        self._vocabulary: dict[str, int] = entry["vocab"]
        self._prefix: str = entry.get("continuing_subword_prefix") or ""
        self._suffix: str = entry.get("end_of_word_suffix") or ""
        self._merges = [_pair(merge) for merge in entry["merges"]]
        self._ranks = {merge: rank for rank, merge in enumerate(self._merges)}

    def tokens(self) -> dict[str, int]:
        """Id of each token."""
        return dict(self._vocabulary)

    def needed(self, wanted: Set[str]) -> set[str]:
        """`wanted`, what builds them, the unknown token, characters, bytes, and what no characters can spell."""
        everything = self._vocabulary.keys()
        singles = {token for token in everything if len(self._bare(token)) == 1}
        unknown = {token for token in everything if token == self._entry.get("unk_token")}
        stay = set(wanted) | singles | unknown | (BYTES & everything)
        if not spelled_by_bytes(self._entry, everything):
            stay |= beyond_spelling(everything - BYTES, {self._bare(token) for token in singles} | set(self._affixes()))
        for token in sorted(stay & everything):
            stay |= self._constituents(token)
        return stay

    def cut(self, renumbered: Mapping[int, int]) -> dict[str, Any]:
        """The entry with the renumbered tokens, and the merges that neither use nor make any other."""
        stay = {token: renumbered[at] for token, at in self._vocabulary.items() if at in renumbered}
        merges = [list(merge) for merge in self._merges if {*merge, self._merged(merge)} <= stay.keys()]
        return {**self._entry, "vocab": stay, "merges": merges}

    def _affixes(self) -> str:
        return self._prefix + self._suffix

    def _bare(self, token: str) -> str:
        return token.removeprefix(self._prefix).removesuffix(self._suffix)

    def _merged(self, merge: Merge) -> str:
        return merge[0] + merge[1][len(self._prefix) :]

    def _constituents(self, token: str) -> set[str]:
        """What merging the token's own text makes on the way to it."""
        parts, made = self._symbols(token), set[str]()
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            rank, at = min((self._ranks.get(pair, len(self._ranks)), place) for place, pair in enumerate(pairs))
            if rank == len(self._ranks):
                return self._every_way(token)
            parts[at : at + 2] = [self._merged(pairs[at])]
            made.add(parts[at])
        return made

    def _symbols(self, token: str) -> list[str]:
        inner = token.startswith(self._prefix) if self._prefix else False
        body = self._bare(token)
        symbols = [self._prefix * (place > 0 or inner) + character for place, character in enumerate(body)]
        if self._suffix and symbols and token.endswith(self._suffix):
            symbols[-1] += self._suffix
        return symbols

    def _every_way(self, token: str) -> set[str]:
        """All that merges to this token in any order: for tokens that do not come from their own characters.

        Such are pieces of bytes, and words that `ignore_merges` alone finds; for these no merge may exist.
        """
        found, open_ends = set[str](), [token]
        while open_ends:
            for merge in self._makers.get(open_ends.pop(), ()):
                open_ends += [part for part in merge if part not in found]
                found.update(merge)
        return found

    @cached_property
    def _makers(self) -> Mapping[str, list[Merge]]:
        makers: defaultdict[str, list[Merge]] = defaultdict(list)
        for merge in self._merges:
            makers[self._merged(merge)].append(merge)
        return makers


def _pair(merge: str | list[str]) -> Merge:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second
