"""Running a bundle: order, padding, length, threads, and what it says to wrong input."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slm_registry import CorruptError, InputTypeError, Prediction, RegistryError, TextClassifier, UsageError
from slm_registry.runtime.loading import load_folder

from tests.registry.helpers import EVIDENCE, LABELS, make_bundle, make_tokenizer_panic

WORDS = ["parcel", "arrive", "money", "back", "hello", "where", "is", "my", "unheard"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("runtime") / "bundle")


@pytest.fixture(scope="module")
def model(folder: Path) -> TextClassifier:
    return TextClassifier.from_folder(folder)


def expected(text: str, length: int = 12) -> np.ndarray[Any, Any]:
    """What the tiny model is meant to compute, without it."""
    logits = np.zeros(len(LABELS))
    for word in text.lower().split()[:length]:
        label, strength = EVIDENCE.get(word, (0, 0.0))
        logits[label] += strength
    powers = np.exp(logits - logits.max())
    result: np.ndarray[Any, Any] = powers / powers.sum()
    return result


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join), max_size=12),
    batch_size=st.integers(1, 8),
)
def test_probabilities_and_their_order(model: TextClassifier, texts: list[str], batch_size: int) -> None:
    rows = model.predict_proba(texts, batch_size=batch_size)
    assert rows.shape == (len(texts), len(LABELS))
    assert rows.dtype == np.float32
    for text, row in zip(texts, rows, strict=True):
        np.testing.assert_allclose(row, expected(text), atol=1e-6)


def test_predictions(model: TextClassifier) -> None:
    found = model.predict(["Where is my PARCEL", "money back", "hello"])
    assert [prediction.label for prediction in found] == ["delivery", "refund", "other"]
    assert isinstance(found[0], Prediction)
    assert isinstance(found[0].probability, float)
    assert found[0].probability == pytest.approx(expected("parcel")[0])
    assert model.labels == LABELS


def test_nothing_in_nothing_out(model: TextClassifier) -> None:
    assert model.predict([]) == []
    assert model.predict_proba([]).shape == (0, len(LABELS))
    np.testing.assert_allclose(model.predict_proba([""]), [[1 / 3] * 3], atol=1e-6)


def test_texts_are_cut_at_the_smallest_limit(folder: Path) -> None:
    text = "hello " * 2 + "parcel " * 20
    assert TextClassifier.from_folder(folder).max_length == 12
    for length in (3, 5):
        row = TextClassifier.from_folder(folder, max_length=length).predict_proba([text])[0]
        np.testing.assert_allclose(row, expected(text, length), atol=1e-6)
    assert TextClassifier.from_folder(folder, max_length=400).max_length == 12


@pytest.mark.parametrize(
    ("positions", "kind", "model_max", "length"),
    [(16, "bert", 1e30, 16), (514, "roberta", None, 513), (None, "bert", None, 512), (64, "bert", 32, 32)],
)
def test_limits_that_files_give(
    tmp_path: Path, positions: int | None, kind: str, model_max: float | None, length: int
) -> None:
    copy = make_bundle(tmp_path / "copy")
    edit(copy / "config.json", max_position_embeddings=positions, model_type=kind)
    edit(copy / "tokenizer_config.json", model_max_length=model_max)
    assert TextClassifier.from_folder(copy).max_length == length


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_padding_on_the_left_gives_the_same(folder: Path, tmp_path: Path) -> None:
    copy = make_bundle(tmp_path / "copy")
    edit(copy / "tokenizer_config.json", padding_side="left")
    texts = ["parcel", "hello hello money back where", ""]
    left = TextClassifier.from_folder(copy)
    np.testing.assert_array_equal(left.predict_proba(texts), TextClassifier.from_folder(folder).predict_proba(texts))
    feed = left._feed([left._opened().tokenizer.encode(text) for text in texts[:2]])
    assert feed["attention_mask"][0].tolist() == [0, 0, 0, 0, 1]


def test_many_threads_share_one_model(folder: Path) -> None:
    model = TextClassifier.from_folder(folder, threads=2)
    batches = [[WORDS[(start + step) % len(WORDS)] for step in range(start + 1)] for start in range(16)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(model.predict_proba, batches * 5))
    for texts, rows in zip(batches * 5, found, strict=True):
        np.testing.assert_allclose(rows, [expected(text) for text in texts], atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ("parcel", r"write predict\(\[text\]\)"),
        (b"parcel", "one bytes"),
        (None, "NoneType"),
        (["parcel", 7], r"text 1 is int \(7\)"),
        (["parcel", None], "text 1 is NoneType"),
        ([["parcel"]], "text 0 is list"),
        ([float("nan")], "text 0 is float"),
        (["parcel", "\udcff bad"], "text 1 cannot be written as UTF-8"),
    ],
)
def test_what_is_no_list_of_texts(model: TextClassifier, texts: Any, complaint: str) -> None:
    for call in (model.predict, model.predict_proba):
        with pytest.raises(InputTypeError, match=complaint) as raised:
            call(texts)
        assert isinstance(raised.value, TypeError)
        assert isinstance(raised.value, RegistryError)


def test_strange_texts(model: TextClassifier) -> None:
    texts = ["\0", "🦆" * 50, "a\u0301", "x" * 100_000, "\n\n", "\u202eparcel"]
    assert np.isfinite(model.predict_proba(texts)).all()


def test_numbers_that_cannot_be_meant(folder: Path, model: TextClassifier) -> None:
    for options in ({"threads": 0}, {"threads": True}, {"max_length": 0}, {"max_length": "5"}):
        with pytest.raises(UsageError):
            TextClassifier.from_folder(folder, **options)
    for batch_size in (0, -1, 1.5):
        with pytest.raises(UsageError):
            model.predict(["x"], batch_size=batch_size)  # type: ignore[arg-type]


def test_a_tokenizer_that_does_not_fit_the_model(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "mixed")
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(
        tokenizer.replace('"parcel":2', '"parcel":4000').replace('"parcel": 2', '"parcel": 4000')
    )
    model = TextClassifier.from_folder(folder)
    assert model.predict(["hello"])[0].label == "other"
    with pytest.raises(CorruptError, match="tokenizer"):
        model.predict(["parcel"])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_tokenizer_that_panics(tmp_path: Path, threads: int) -> None:
    folder = make_bundle(tmp_path / "panic")
    make_tokenizer_panic(folder)
    with (
        TextClassifier.from_folder(folder, threads=threads) as model,
        pytest.raises(CorruptError, match="the tokenizer cannot encode these texts: index out of bounds"),
    ):
        model.predict(["parcel", "hello"])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]) -> None:
    def interrupted(path: str) -> Any:
        raise kind

    monkeypatch.setattr("tokenizers.Tokenizer", SimpleNamespace(from_file=interrupted))
    with pytest.raises(kind):
        TextClassifier.from_folder(folder)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def broken(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(b"broken")

    return write


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


@pytest.mark.parametrize(
    ("damage", "kind", "complaint"),
    [
        (without("config.json"), UsageError, r"config\.json is missing"),
        (without("tokenizer.json"), UsageError, r"tokenizer\.json is missing"),
        (without("model.onnx"), UsageError, r"model\.onnx is missing"),
        (broken("config.json"), CorruptError, r"config\.json: not strict JSON"),
        (broken("tokenizer.json"), CorruptError, r"tokenizer\.json: not a tokenizer"),
        (broken("model.onnx"), CorruptError, r"model\.onnx: onnxruntime cannot load it"),
        (config(id2label={"0": "a", "2": "b"}), UsageError, "id2label"),
        (config(id2label={"0": "a"}), UsageError, "two or more"),
        (config(id2label=["a", "b"]), UsageError, "id2label"),
        (config(id2label={"0": "a", "1": "b"}), UsageError, "2 labels"),
        (config(problem_type="multi_label_classification"), UsageError, "problem_type"),
        (config(architectures=["GPT2LMHeadModel"]), UsageError, "export it with its cache inside the graph"),
        (config(architectures=["T5ForConditionalGeneration"]), UsageError, r"decoder_model\.onnx is missing"),
        (config(architectures=["GPT2Model"]), UsageError, r"\['GPT2Model'\]; this release runs \.\.\.ForSequence"),
        (config(architectures=None), UsageError, "architectures is None"),
        *(
            (config(pad_token_id=value, model_type="roberta"), UsageError, "pad_token_id is")
            for value in ("x", [1], {}, 1.5, True, 10**30)
        ),
    ],
)
def test_folders_that_are_no_classifier(
    tmp_path: Path, damage: Callable[[Path], None], kind: type[RegistryError], complaint: str
) -> None:
    folder = make_bundle(tmp_path / "damaged")
    load_folder(folder)
    damage(folder)
    with pytest.raises(kind, match=complaint):
        load_folder(folder)
