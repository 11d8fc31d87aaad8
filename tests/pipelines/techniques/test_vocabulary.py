from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.bundle import Bundle
from pipelines.config import Vocabulary
from pipelines.errors import ModelError
from pipelines.families.encoder import EncoderClassifier
from pipelines.techniques.vocabulary import check_vocabulary, kept_tokens, prune_vocabulary
from tests.tiny import tiny_model, tiny_rows

FAMILY = EncoderClassifier()
TEXTS = [text for text, _ in tiny_rows()]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return FAMILY.load_pretrained(tiny_model(tmp_path / "body"), ["a", "b"])


def kept(bundle: Bundle, min_count: int = 1, keep_first: int = 0) -> list[int]:
    rows = FAMILY.encode(bundle.tokenizer, TEXTS, 32)
    return kept_tokens(bundle.tokenizer, rows, Vocabulary(min_count=min_count, keep_first=keep_first))


def tokens(bundle: Bundle, ids: list[int]) -> set[str]:
    return set(bundle.tokenizer.convert_ids_to_tokens(ids))


def test_what_stays(bundle: Bundle) -> None:
    stay = tokens(bundle, kept(bundle))
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##z", "parcel"} <= stay
    assert not {"zebra", "quartz", "##ing"} & stay
    assert "zebra" in tokens(bundle, kept(bundle, keep_first=len(bundle.tokenizer)))
    assert "late" not in tokens(bundle, kept(bundle, min_count=9))
    assert {"q", "[MASK]"} <= tokens(bundle, kept(bundle, min_count=10_000))


def test_the_function_stays_and_the_tokenizer_matches(bundle: Bundle, tmp_path: Path) -> None:
    def logits(of: Bundle, texts: list[str]) -> torch.Tensor:
        with torch.inference_mode():
            return FAMILY.forward(of.model, FAMILY.collate(of.tokenizer, FAMILY.encode(of.tokenizer, texts, 32))).logits

    before, old = logits(bundle, TEXTS), bundle.tokenizer
    keep = kept(bundle)
    bundle.tokenizer = prune_vocabulary(bundle.model, old, keep)
    check_vocabulary(old, bundle.tokenizer, keep, TEXTS)
    assert len(bundle.tokenizer) == len(keep) < len(old)
    assert bundle.model.get_input_embeddings().weight.shape[0] == len(keep)
    assert torch.allclose(logits(bundle, TEXTS), before, atol=1e-6)
    FAMILY.save(bundle, tmp_path / "out")
    again = FAMILY.load(tmp_path / "out")
    assert torch.allclose(logits(again, TEXTS), before, atol=1e-6)
    pieces = again.tokenizer.tokenize("zebra")
    assert pieces == ["z", "##e", "##b", "##r", "##a"]  # cut to characters, never unknown


def test_a_tokenizer_that_cuts_otherwise_is_refused(bundle: Bundle) -> None:
    keep = kept(bundle)
    smaller = prune_vocabulary(bundle.model, bundle.tokenizer, keep)
    swapped = [*keep[:-2], keep[-1], keep[-2]]
    with pytest.raises(ModelError, match="changed the tokens of"):
        check_vocabulary(bundle.tokenizer, smaller, swapped, TEXTS)


def test_other_tokenizer_models_are_refused_by_name() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")), unk_token="<unk>"
    )
    with pytest.raises(
        ModelError,
        match=r"a WordLevel vocabulary cannot be pruned; set prune.vocabulary and every vocabulary_folds to null",
    ):
        kept_tokens(words, [[1]], Vocabulary(min_count=1, keep_first=0))
