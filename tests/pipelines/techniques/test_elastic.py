"""An elastic student: its parts share its weights, compute what they would compute alone, and all of them learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.bundle import Bundle
from pipelines.config import Losses, StudentElastic, StudentLayers, StudentTraining
from pipelines.data.clean import Split
from pipelines.errors import ModelError
from pipelines.families.encoder import EncoderClassifier
from pipelines.techniques.course import Unkept
from pipelines.techniques.distilling import answered_loss
from pipelines.techniques.elastic import (
    Elastic,
    elastic_student,
    extract,
    learn_elastic,
    learn_whole,
    slices_of,
    sort_units,
    view,
)
from pipelines.techniques.lessons import Lesson
from pipelines.techniques.scoring import predict_logits, score
from pipelines.techniques.shapes import Slice
from pipelines.techniques.vocabulary.choices import Cut, cuts_of
from tests.tiny import tiny_model, tiny_rows

FAMILY = EncoderClassifier()
LABELS = ["login", "parcel", "refund"]
TEXTS = [text for text, _ in tiny_rows()]
TRUTH = [LABELS.index(label) for _, label in tiny_rows()]
PART = Slice((0, 2), 32, 2, 0)
LOSSES = Losses(
    kl=1.0, reverse_kl=0.0, cross_entropy=1.0, hidden_mse=0.0, hidden_cosine=0.0, relation=0.0, temperature=2.0
)
TRAINING = StudentTraining(
    epochs=25,
    batch_size=16,
    learning_rate=5e-3,
    warmup_ratio=0.1,
    weight_decay=0.0,
    max_grad_norm=1.0,
    patience=25,
    precision="fp32",
    vocabulary_folds=None,
)


def choice(**changes: Any) -> StudentElastic:
    values = {
        "kind": "elastic",
        "layers": [[0, 1, 2], [0, 2], [2]],
        "intermediate_sizes": [64, 32, 16],
        "num_attention_heads": [4, 2],
        "vocabularies": [{"min_count": 1, "keep_first": 1000}, {"min_count": 1, "keep_first": 0}],
        "importance": "taylor",
        "calibration_rows": 32,
        "whole_epochs": 0,
        "random_slices": 2,
        "in_place": 1.0,
        "without_layers": None,
    }
    return StudentElastic.model_validate(values | changes)


def student(tmp_path: Path, kind: str = "bert") -> Bundle:
    bundle = FAMILY.load_pretrained(tiny_model(tmp_path / kind, kind), LABELS)
    layers = list(range(FAMILY.depth(bundle.model)))
    return FAMILY.student(Bundle(bundle.model, bundle.tokenizer, {}), StudentLayers(kind="layers", layers=layers))


class Said:
    """What a teacher said, in memory."""

    def rows_of(self, texts: list[str]) -> np.ndarray:
        return np.arange(len(texts))

    def cut_alike(self, rows: np.ndarray, tokenizer: Any, encoded: Any) -> np.ndarray:
        return np.ones(len(rows), dtype=bool)

    def logits_of(self, rows: np.ndarray) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(TRUTH)[rows], 3).float() * 6


def elastic(bundle: Bundle, wanted: StudentElastic, folds: int | None = None) -> Elastic:
    lesson = Lesson(TEXTS, np.array(TRUTH), np.arange(len(TEXTS)), Said(), {})  # type: ignore[arg-type]
    cuts = cuts_of(FAMILY, bundle, TEXTS, wanted.vocabularies, 16)
    return elastic_student(
        FAMILY, bundle, wanted, cuts, lesson, Split(TEXTS, TRUTH), LOSSES, max_length=16, folds=folds, seed=3
    )


def answers(model: Any, bundle: Bundle) -> torch.Tensor:
    return predict_logits(FAMILY, model.eval(), bundle.tokenizer, FAMILY.encode(bundle.tokenizer, TEXTS[::5], 16))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "deberta-v2"])
def test_a_view_is_the_plain_part(kind: str, tmp_path: Path) -> None:
    bundle = student(tmp_path, kind)
    torch.testing.assert_close(
        answers(view(FAMILY, bundle.model, PART), bundle), answers(extract(FAMILY, bundle.model, PART), bundle)
    )


@pytest.mark.parametrize("kind", ["mobilebert", "modernbert"])
def test_what_has_no_width_to_cut_is_cut_in_depth(kind: str, tmp_path: Path) -> None:
    bundle = student(tmp_path, kind)
    shallow = Slice((0, 2), 0, 0, 0)
    small = extract(FAMILY, bundle.model, shallow)
    assert FAMILY.depth(small) == 2
    torch.testing.assert_close(answers(view(FAMILY, bundle.model, shallow), bundle), answers(small, bundle))


def test_a_view_trains_the_whole(tmp_path: Path) -> None:
    bundle = student(tmp_path)
    part = view(FAMILY, bundle.model, PART)
    inputs = FAMILY.collate(bundle.tokenizer, FAMILY.encode(bundle.tokenizer, TEXTS[:4], 16))
    FAMILY.forward(part, inputs).logits.sum().backward()
    whole, plain = FAMILY.units(bundle.model), FAMILY.units(extract(FAMILY, bundle.model, PART))
    assert plain[0].ffn_down.in_features == 32
    for index, used in ((0, True), (1, False), (2, True)):
        gradient = whole[index].ffn_down.weight.grad
        assert (gradient is not None) == used
        if gradient is not None:
            assert bool((gradient[:, :32] != 0).any()) and not bool(gradient[:, 32:].any())


def test_a_part_is_a_checkpoint_that_plain_transformers_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    bundle = student(tmp_path)
    small = Bundle(extract(FAMILY, bundle.model, PART), bundle.tokenizer, {})
    FAMILY.save(small, tmp_path / "part")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "part")
    torch.testing.assert_close(answers(loaded, bundle), answers(small.model, bundle), atol=1e-5, rtol=1e-5)


def test_units_are_put_in_order_and_the_function_stays(tmp_path: Path) -> None:
    bundle = student(tmp_path)
    before = answers(bundle.model, bundle)
    with torch.no_grad():
        FAMILY.units(bundle.model)[2].ffn_down.weight[:, 63] *= 50  # the last column does most
        loud = answers(bundle.model, bundle)
    sort_units(elastic(bundle, choice()), LOSSES, np.arange(32), 16)
    assert not torch.allclose(before, loud)
    torch.testing.assert_close(answers(bundle.model, bundle), loud, atol=1e-4, rtol=1e-4)
    norms = FAMILY.units(bundle.model)[2].ffn_down.weight.norm(dim=0)
    assert int(norms.argmax()) == 0


def test_the_space_begins_with_the_whole_and_ends_with_the_smallest() -> None:
    space = slices_of(choice())
    assert (len(space), len(set(space))) == (36, 36)
    assert (space[0], space[-1]) == (Slice((0, 1, 2), 64, 4, 0), Slice((2,), 16, 2, 1))


@pytest.mark.parametrize("folds", [None, 4])
def test_every_part_learns(folds: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = student(tmp_path)
    made = elastic(bundle, choice(), folds)
    for reader in made.readers:
        assert ([*reader.rows()] != reader.whole.encoded) == (folds is not None)
    rows = bundle.model.get_input_embeddings().weight
    unused = rows[bundle.tokenizer.convert_tokens_to_ids("zebra")].clone()
    sort_units(made, LOSSES, np.arange(32), 16)
    records = learn_elastic(made, LOSSES, TRAINING, seed=3, keeper=Unkept())
    assert records[-1].validation_loss < records[0].validation_loss
    for part in (made.parts[0], made.parts[17], made.parts[-1]):
        model = extract(FAMILY, bundle.model, part)
        assert score(FAMILY, model, bundle.tokenizer, made.checked[part.vocabulary], TRUTH).accuracy > 0.9, part
    torch.testing.assert_close(rows[bundle.tokenizer.convert_tokens_to_ids("zebra")], unused)


def test_the_whole_learns_alone_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = elastic(student(tmp_path), choice(whole_epochs=3))
    monkeypatch.setattr("pipelines.techniques.elastic.view", lambda *_: pytest.fail("a part was asked"))
    records = learn_whole(made, LOSSES, TRAINING, seed=3, keeper=Unkept())
    assert [(record.phase, record.epoch) for record in records] == [("whole", 1), ("whole", 2), ("whole", 3)]
    assert records[-1].validation_loss < records[0].validation_loss
    reached = score(FAMILY, made.student.model, made.student.tokenizer, made.checked[0], TRUTH)
    assert reached.accuracy == max(record.validation_accuracy for record in records)
    before = [weight.clone() for weight in made.student.model.parameters()]
    assert learn_whole(elastic(made.student, choice(whole_epochs=0)), LOSSES, TRAINING, seed=3, keeper=Unkept()) == []
    assert all((one == other).all() for one, other in zip(before, made.student.model.parameters(), strict=True))


def test_a_smaller_vocabulary_reads_with_the_wholes_rows(tmp_path: Path) -> None:
    bundle = student(tmp_path)
    whole, small = cuts_of(FAMILY, bundle, TEXTS, choice().vocabularies, 16)
    assert len(small.kept) < len(whole.kept)
    assert small.encode(FAMILY, TEXTS, 16) == FAMILY.encode(bundle.tokenizer, TEXTS, 16)
    assert small.encode(FAMILY, ["zebra"], 16) != FAMILY.encode(bundle.tokenizer, ["zebra"], 16)
    assert Cut(bundle.tokenizer, [5, 3, 9]).of_the_whole([[0, 2], [1]]) == [[5, 9], [3]]


def test_a_vocabulary_that_is_no_part_of_the_first_is_refused(tmp_path: Path) -> None:
    wanted = choice(vocabularies=list(reversed(choice().model_dump()["vocabularies"])))
    with pytest.raises(
        ModelError, match=r"number 2 keeps \d+ tokens that the first one has not; name the largest first"
    ):
        cuts_of(FAMILY, student(tmp_path), TEXTS, wanted.vocabularies, 16)


def test_hidden_states_are_the_lesson_of_the_whole_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = elastic(student(tmp_path), choice(random_slices=3))
    asked: list[tuple[bool, bool]] = []

    def listen(family: Any, bundle: Bundle, reading: Any, batch: Any, places: Any, weights: Losses) -> Any:
        asked.append((bundle is made.student, weights.wants_hidden))
        return answered_loss(family, bundle, reading, batch, places, weights.of_logits)

    monkeypatch.setattr("pipelines.techniques.elastic.answered_loss", listen)
    hidden = LOSSES.model_copy(update={"hidden_mse": 1.0, "relation": 1.0})
    learn_elastic(made, hidden, TRAINING.model_copy(update={"epochs": 1}), seed=1, keeper=Unkept())
    assert set(asked) == {(True, True), (False, False)}
    assert len(asked) == 5 * len([one for one in asked if one[0]])


def test_every_batch_goes_through_the_whole_the_smallest_and_some_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = elastic(student(tmp_path), choice(random_slices=2))
    asked: list[tuple[int, int]] = []

    def listen(family: Any, bundle: Bundle, *rest: Any) -> Any:
        width = bundle.model.base_model.encoder.layer[0].output.dense.in_features
        asked.append((FAMILY.depth(bundle.model), width))
        return answered_loss(family, bundle, *rest)

    monkeypatch.setattr("pipelines.techniques.elastic.answered_loss", listen)
    learn_elastic(made, LOSSES, TRAINING.model_copy(update={"epochs": 1}), seed=1, keeper=Unkept())
    batches = [asked[first : first + 4] for first in range(0, len(asked), 4)]
    assert len(batches) > 2
    assert all(batch[:2] == [(3, 64), (1, 16)] for batch in batches)
    assert len({shape for batch in batches for shape in batch[2:]}) > 2


def test_parts_learn_from_the_whole_too(tmp_path: Path) -> None:
    weights = {}
    for in_place in (0.0, 1.0):
        torch.manual_seed(0)
        made = elastic(student(tmp_path / str(in_place)), choice(in_place=in_place, random_slices=0))
        learn_elastic(made, LOSSES, TRAINING.model_copy(update={"epochs": 1}), seed=1, keeper=Unkept())
        weights[in_place] = made.student.model.classifier.weight
    assert (weights[0.0] - weights[1.0]).abs().max() > 1e-5


def test_sizes_of_what_has_none_to_cut_are_refused_before_any_training(tmp_path: Path) -> None:
    bundle = student(tmp_path, "modernbert")
    wanted = choice(layers=[[0, 1, 2], [0, 2]], whole_epochs=3)
    with pytest.raises(
        ModelError, match=r"FFN width and heads cannot be pruned .* or distill\.student's lists of sizes to \[\]"
    ):
        elastic(bundle, wanted)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Slice((0, 3), 32, 2, 0), r"holds teacher layers \[0, 1, 2\], not \[3\]"),
        (Slice((0,), 128, 2, 0), "FFN 128 and 2 heads, but the elastic student has 64 and 4"),
    ],
)
def test_a_part_that_is_not_there_is_named(part: Slice, message: str, tmp_path: Path) -> None:
    bundle = student(tmp_path)
    for cut in (view, extract):
        with pytest.raises(ModelError, match=message):
            cut(FAMILY, bundle.model, part)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [[0, 1], [2]]}, r"layers \[2\]: name each layer once, in order, and only layers of the first list"),
        ({"intermediate_sizes": [16, 32]}, r"intermediate_sizes \[16, 32\]: name each size once, the largest first"),
        ({"num_attention_heads": []}, "name both"),
    ],
)
def test_an_impossible_choice_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choice(**changes)
