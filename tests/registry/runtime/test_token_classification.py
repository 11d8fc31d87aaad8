"""Tagging words: spans with their places, long texts in windows, and what transformers and the factory say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import InputTypeError, Span, TokenClassifier, UsageError
from slm_registry.runtime.loading import load_folder
from slm_registry.runtime.token_classification import _bounds

from tests.registry.generators import WORDS, make_tagger

SURE = float(np.exp(4) / (np.exp(4) + 4))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TokenClassifier:
    found = load_folder(make_tagger(tmp_path_factory.mktemp("tagger")))
    assert isinstance(found, TokenClassifier)
    return found


def test_spans(model: TokenClassifier) -> None:
    text = "  Ada  Lovelace\tto\u00a0London a"
    found, none, other = model.predict([text, "", "verb verb lovelace ada ada lovelace"])
    assert [span._replace(score=0) for span in found] == [
        Span("PER", "Ada  Lovelace", 2, 15, 0),
        Span("LOC", "London", 19, 25, 0),
    ]
    assert all(text[span.start : span.end] == span.text for span in found)
    assert [span.score for span in found] == pytest.approx([SURE, SURE])
    assert none == []
    # A tag of no such form is a span a word; I- begins one where none of its kind is open; B- begins another.
    assert [(span.label, span.text) for span in other] == [
        ("X", "verb"),
        ("X", "verb"),
        ("PER", "lovelace"),
        ("PER", "ada"),
        ("PER", "ada lovelace"),
    ]


def test_words(model: TokenClassifier) -> None:
    found = model.predict_words([["Grace", "\u0007", "xyz"], [], ["two words", "London"]])
    assert [[tag and tag.label for tag in row] for row in found] == [["B-PER", None, "O"], [], ["O", "B-LOC"]]
    assert found[0][0].probability == pytest.approx(SURE)  # type: ignore[union-attr]
    assert model.predict_words([]) == model.predict([]) == []


def test_long_texts_are_read_whole(model: TokenClassifier) -> None:
    words = [["ada", "lovelace", "xy", "london", "abcde", "verb"][(7 * at) % 6] for at in range(200)]
    words[50] = "q" * 40
    (found,) = model.predict_words([words])
    assert [tag.label for tag in found if tag] == [WORDS.get(word, "O") for word in words]
    assert model.predict_words([words], batch_size=1)[0] == found
    assert len(model._windows(model._opened().tokenizer, [words])) > 20


@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=60), room=st.integers(1, 12))
def test_windows_label_every_word_once(sizes: list[int], room: int) -> None:
    windows = _bounds(sizes, room)
    labelled = [word for _, _, first, last in windows for word in range(first, last)]
    assert labelled == list(range(len(sizes)))
    for start, end, first, last in windows:
        assert start <= first <= last <= end
        assert sum(sizes[start:end]) <= room or end == start + 1 or sum(sizes[start + 1 : end]) == 0


def test_windows_see_what_stands_around_a_word() -> None:
    for start, end, first, last in _bounds([1] * 100, 20):
        assert (first - start >= 5 or start == 0) and (end - last >= 4 or end == 100)


def test_what_is_no_list_of_words(model: TokenClassifier) -> None:
    for wrong in ("ada", ["ada"], [["ada", 3]], [3]):
        with pytest.raises(InputTypeError):
            model.predict_words(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch_size is 0"):
        model.predict(["x"], batch_size=0)
    with pytest.raises(InputTypeError, match=r"write predict\(\[text\]\)"):
        model.predict("ada")


def test_words_and_tags_are_those_of_the_factory(tmp_path: Path) -> None:
    """A tiny BERT, exported: the tag of each word is that of torch at the place that training looks at."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    from pipelines.families.tagging import first_tokens

    make_tagger(tmp_path)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(
        **sizes, vocab_size=len(tokenizer), num_labels=5, max_position_embeddings=40, initializer_range=0.5
    )
    bert = BertForTokenClassification(config).eval()
    bert.save_pretrained(tmp_path)
    sample = tokenizer(["ada", "london or grace"], return_tensors="pt", padding=True, return_token_type_ids=False)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    torch.onnx.export(
        bert,
        (sample["input_ids"], sample["attention_mask"]),
        str(tmp_path / "model.onnx"),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes=(axes, axes),
        dynamo=True,
        verbose=False,
    )
    model = load_folder(tmp_path)
    assert isinstance(model, TokenClassifier)
    sentences = [["ada", "lovelace", "came"], ["to"], ["london,", "by", "train", "verb"]]
    found = model.predict_words(sentences)
    for words, tags in zip(sentences, found, strict=True):
        encoded = tokenizer([words], is_split_into_words=True, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            rows = bert(**encoded).logits[0].softmax(dim=-1)
        for place, word in first_tokens(encoded.word_ids(0)).items():
            tag = tags[word]
            assert tag is not None
            assert tag.label == bert.config.id2label[int(rows[place].argmax())]
            assert tag.probability == pytest.approx(float(rows[place].max()), abs=1e-5)
