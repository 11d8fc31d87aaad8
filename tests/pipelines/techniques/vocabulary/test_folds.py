"""A vocabulary without one of its folds: what leaves, and that nothing of a text is lost."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import ModelError
from pipelines.techniques.vocabulary.folds import folds_of
from tests.tiny import tiny_rows, tiny_tokenizer
from tests.tiny_generators import LINES, bpe_tokenizer, unigram_tokenizer

TOKENIZERS = {"wordpiece": tiny_tokenizer, "bytes": bpe_tokenizer, "unigram": unigram_tokenizer}
FOLDS = 5


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_each_fold_leaves_once_and_texts_lose_nothing(kind: str) -> None:
    tokenizer: Any = TOKENIZERS[kind]()
    texts = [text for text, _ in tiny_rows()] if kind == "wordpiece" else list(LINES)
    everything = set(tokenizer.get_vocab().values())
    folds = folds_of(tokenizer, FOLDS, seed=3)
    gone = [everything - set(fold.kept) for fold in folds]
    assert len(folds) == FOLDS and all(gone)
    assert sum(map(len, gone)) == len(set().union(*gone))
    assert not set(tokenizer.all_special_ids) & set().union(*gone)
    other = 0
    for fold, left_out in zip(folds, gone, strict=True):
        for text in texts:
            plain = tokenizer(text)["input_ids"]
            pieces = fold.of_the_whole([fold.tokenizer(text)["input_ids"]])[0]
            assert not set(pieces) & left_out
            assert tokenizer.decode(pieces).replace(" ##", "") == tokenizer.decode(plain).replace(" ##", "")
            assert (pieces != plain) == bool(set(plain) & left_out)
            other += pieces != plain
    assert other


def test_the_seed_decides() -> None:
    tokenizer = tiny_tokenizer()
    kept = [[fold.kept for fold in folds_of(tokenizer, FOLDS, seed)] for seed in (3, 3, 4)]
    assert kept[0] == kept[1] != kept[2]


def test_a_vocabulary_that_cannot_be_pruned_says_what_to_set() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    with pytest.raises(ModelError, match="every vocabulary_folds to null"):
        folds_of(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>"), FOLDS, seed=3)
