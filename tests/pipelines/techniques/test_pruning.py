from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from pipelines.bundle import Bundle
from pipelines.config import StructuredPruning
from pipelines.errors import ModelError
from pipelines.families.encoder import EncoderClassifier
from pipelines.techniques.pruning import Shape, prune_to, shape_of, targets, unit_importance
from tests.tiny import tiny_model, tiny_rows

FAMILY = EncoderClassifier()
LABELS = ["login", "parcel", "refund"]
TEXTS = [text for text, _ in tiny_rows()[::7]]
TRUTH = torch.tensor([LABELS.index(label) for _, label in tiny_rows()[::7]])


def wanted(**changes: Any) -> StructuredPruning:
    losses = {
        "kl": 1,
        "reverse_kl": 0,
        "cross_entropy": 0,
        "hidden_mse": 0,
        "hidden_cosine": 0,
        "relation": 0,
        "temperature": 2,
    }
    recovery = {
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_ratio": 0,
        "weight_decay": 0,
        "max_grad_norm": 1,
        "patience": 1,
        "precision": "fp32",
        "vocabulary_folds": None,
    }
    values = {
        "technique": "structured",
        "importance": "taylor",
        "calibration_rows": 8,
        "steps": 2,
        "num_hidden_layers": None,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "vocabulary": None,
        "losses": losses,
        "step_epochs": 1,
        "recovery": recovery,
    }
    return StructuredPruning.model_validate(values | changes)


@pytest.fixture(params=["bert", "distilbert", "roberta"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    bundle = FAMILY.load_pretrained(tiny_model(tmp_path / "body", request.param), LABELS)
    bundle.model.config.teacher_layers = [0, 1, 2]
    return bundle


def inputs(bundle: Bundle) -> dict[str, Tensor]:
    return FAMILY.collate(bundle.tokenizer, FAMILY.encode(bundle.tokenizer, TEXTS, 32))


def losses(bundle: Bundle) -> Any:
    def answer(model: Any) -> Iterator[Tensor]:
        model.eval()
        yield torch.nn.functional.cross_entropy(FAMILY.forward(model, inputs(bundle)).logits, TRUTH)

    return answer


def logits(bundle: Bundle, model: Any = None) -> Tensor:
    with torch.inference_mode():
        return FAMILY.forward(model or bundle.model, inputs(bundle)).logits


def test_targets_go_geometrically_and_end_exactly() -> None:
    shapes = targets(Shape(3, 64, 4), wanted(num_hidden_layers=2, steps=3))
    assert shapes[-1] == Shape(2, 16, 2)
    assert [shape.width for shape in shapes] == [40, 25, 16]


def test_growing_is_refused() -> None:
    with pytest.raises(ModelError, match=r"prune\.intermediate_size is 128, but the student has only 64"):
        targets(Shape(3, 64, 4), wanted(intermediate_size=128))


@pytest.mark.parametrize("importance", ["taylor", "activation"])
def test_the_cut_has_the_shape_and_saves_as_plain_transformers(bundle: Bundle, tmp_path: Path, importance: str) -> None:
    prune_to(FAMILY, bundle.model, Shape(2, 16, 3), losses(bundle), importance)
    prune_to(
        FAMILY, bundle.model, Shape(2, 16, 2), losses(bundle), importance
    )  # a second cut counts in the present heads
    assert shape_of(FAMILY, bundle.model, wanted()) == Shape(2, 16, 2)
    FAMILY.save(bundle, tmp_path / "out")
    assert torch.allclose(logits(FAMILY.load(tmp_path / "out")), logits(bundle), atol=1e-6)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        theirs = plain(**inputs(bundle)).logits
    assert torch.allclose(theirs, logits(bundle), atol=1e-5)


def test_units_that_do_nothing_go_first(bundle: Bundle) -> None:
    """Dead FFN columns and a dead head: pruned without changing the function."""
    for units in FAMILY.units(bundle.model):
        units.ffn_down.weight.data[:, :48] = 0
        units.attention_out.weight.data[:, units.head_size : 2 * units.head_size] = 0
    before = logits(bundle)
    prune_to(FAMILY, bundle.model, Shape(3, 16, 3), losses(bundle), "taylor")
    assert torch.allclose(logits(bundle), before, atol=1e-5)
    assert all(heads == [1] for heads in bundle.model.config.pruned_heads.values())


def test_a_layer_that_does_nothing_goes_first(tmp_path: Path) -> None:
    bundle = FAMILY.load_pretrained(tiny_model(tmp_path / "body", "bert"), LABELS)
    bundle.model.config.teacher_layers = [0, 1, 2]
    idle = FAMILY.units(bundle.model)[1]
    for layer in (idle.ffn_down, idle.attention_out):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    whole = logits(bundle)

    def drift(model: Any) -> Iterator[Tensor]:
        """How far the answers are from the whole model's: nothing, where the idle layer is the one that went."""
        yield (FAMILY.forward(model.eval(), inputs(bundle)).logits - whole).square().mean()

    prune_to(FAMILY, bundle.model, Shape(2, 0, 0), drift, "taylor")
    assert FAMILY.teacher_layers(bundle.model) == [0, 2]


def test_taylor_importance_is_the_gradient_of_a_gate(bundle: Bundle) -> None:
    """A gate of 1 on a column: |d loss / d gate| summed over single tokens is that column's importance."""
    model, answer = bundle.model, losses(bundle)
    columns, _ = unit_importance(FAMILY, model, answer, "taylor")
    reader = FAMILY.units(model)[0].ffn_down
    rows, width = inputs(bundle)["input_ids"].numel(), reader.in_features
    gate = torch.ones(rows, width, requires_grad=True)
    handle = reader.register_forward_pre_hook(lambda _m, args: (args[0] * gate.reshape(args[0].shape),))
    next(answer(model)).backward()
    handle.remove()
    assert gate.grad is not None
    assert torch.allclose(columns[0], gate.grad.abs().sum(0), rtol=1e-4, atol=1e-8)
    assert float(columns[0].max()) > 0


def test_mobilebert_can_lose_layers_but_not_width(tmp_path: Path) -> None:
    bundle = FAMILY.load_pretrained(tiny_model(tmp_path / "body", "mobilebert"), LABELS)
    assert shape_of(FAMILY, bundle.model, wanted(intermediate_size=None, num_attention_heads=None)) == Shape(3, 0, 0)
    prune_to(FAMILY, bundle.model, Shape(2, 0, 0), losses(bundle), "taylor")
    assert FAMILY.depth(bundle.model) == 2
    with pytest.raises(ModelError, match="'mobilebert': FFN width and heads cannot be pruned"):
        shape_of(FAMILY, bundle.model, wanted())
