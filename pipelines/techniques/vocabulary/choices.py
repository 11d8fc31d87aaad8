"""Several vocabularies of one student, each a choice of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.bundle import Bundle
from pipelines.config import Vocabulary
from pipelines.errors import ModelError
from pipelines.families.base import Family, TokenIds
from pipelines.techniques.vocabulary.cutting import kept_tokens, prune_tokenizer
from pipelines.techniques.vocabulary.roles import ids_in_use


@dataclass(frozen=True)
class Cut:
    """One vocabulary of a student: its tokenizer, and the whole's id of each of its tokens."""

    tokenizer: Any
    kept: Sequence[int]

    def encode(self, family: Family, texts: Sequence[str], max_length: int) -> list[TokenIds]:
        """Token ids, the whole's, of each text as this vocabulary cuts it."""
        return self.of_the_whole(family.encode(self.tokenizer, texts, max_length))

    def of_the_whole(self, rows: Sequence[TokenIds]) -> list[TokenIds]:
        """The whole's token ids for this vocabulary's."""
        return [[self.kept[token] for token in row] for row in rows]


def uncut(tokenizer: Any) -> Cut:
    """A whole vocabulary as a choice of its tokens."""
    return Cut(tokenizer, range(max(tokenizer.get_vocab().values()) + 1))


def cuts_of(
    family: Family, student: Bundle, texts: Sequence[str], vocabularies: Sequence[Vocabulary], max_length: int
) -> list[Cut]:
    """Every vocabulary of the recipe, as the tokens of these texts decide.

    Raises ModelError for a tokenizer that cannot be pruned, and for a vocabulary that is no part of the first one.
    """
    encoded = family.encode(student.tokenizer, texts, max_length)
    used = ids_in_use(student.model)
    kept = [kept_tokens(student.tokenizer, encoded, wanted, used) for wanted in vocabularies]
    for at, ids in enumerate(kept):
        if more := set(ids) - set(kept[0]):
            raise ModelError(
                f"distill.student.vocabularies: number {at + 1} keeps {len(more)} tokens that the first one has not; name the largest first"
            )
    return [Cut(prune_tokenizer(student.tokenizer, ids), ids) for ids in kept]
