from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from pipelines.bundle import Bundle
from pipelines.config import MixedForm, Task
from pipelines.data.clean import CleanData, Split
from pipelines.errors import ModelError
from pipelines.exporting import shrink
from pipelines.families.encoder import EncoderClassifier
from pipelines.techniques.exporting import export_onnx, onnx_logits, open_session
from pipelines.techniques.mixed_precision import Matrix, divergences, mixed_in_blocks, most_sensitive, open_mix
from pipelines.techniques.quantizing_weights import Rounding
from pipelines.techniques.weightmatrices import expected_products
from tests.made_once import MadeOnce
from tests.tiny import tiny_model, tiny_rows

FAMILY = EncoderClassifier()
TEXTS = [text for text, _ in tiny_rows()[::8]]
PLANTED = "bert.encoder.layer.1.intermediate.dense.weight"
NEAREST = Rounding(32, symmetric=True, moments=None)


def form(**changes: Any) -> MixedForm:
    plain = {
        "technique": "mixed",
        "share_high": 0.2,
        "block_size": 32,
        "symmetric": True,
        "accuracy_level": 4,
        "rounding": "nearest",
        "calibration_rows": 12,
    }
    return MixedForm.model_validate(plain | changes)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A classifier of which one matrix has an outlier in each block, on an input that is always 0: harmless until it sets a block's scale."""
    made = FAMILY.load_pretrained(tiny_model(tmp_path_factory.mktemp("body")), ["a", "b", "c"])
    layer = made.model.bert.encoder.layer[1]
    with torch.no_grad():
        layer.attention.output.LayerNorm.weight[0] = layer.attention.output.LayerNorm.bias[0] = 0.0
        layer.intermediate.dense.weight[:, 0] = 8.0
        made.model.classifier.weight.mul_(3)
    return made


@pytest.fixture(scope="module")
def exported(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(FAMILY, bundle, 32, path)
    return path


@pytest.fixture(scope="module")
def batches(bundle: Bundle) -> list[dict[str, np.ndarray]]:
    """Two padded batches."""
    rows = FAMILY.encode(bundle.tokenizer, TEXTS, 32)
    collated = [FAMILY.collate(bundle.tokenizer, rows[at : at + 7]) for at in (0, 7)]
    return [{name: value.numpy() for name, value in one.items()} for one in collated]


@pytest.fixture(scope="module")
def mixed(
    bundle: Bundle, exported: Path, batches: list[dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int, list[Matrix]]:
    out = tmp_path_factory.mktemp("mixed") / "model.onnx"
    return out, *mixed_in_blocks(exported, out, form(), batches, 1, bundle.model)


def distance(path: Path, exported: Path, bundle: Bundle) -> float:
    """Mean |difference| of logits to the float32 file's."""
    rows = FAMILY.encode(bundle.tokenizer, TEXTS, 32)
    one, other = (onnx_logits(open_session(file, 1), FAMILY, bundle.tokenizer, rows) for file in (path, exported))
    return float(np.abs(one - other).mean())


def test_a_planted_matrix_is_found_and_keeps_its_bits(mixed: tuple[Path, int, list[Matrix]]) -> None:
    _, _, matrices = mixed
    worst = max(matrices, key=lambda each: each.nats)
    assert (worst.matrix, worst.bits) == (PLANTED, 8)
    others = [each.nats for each in matrices if each.weights >= worst.weights and each.matrix != PLANTED]
    assert len(others) >= 5
    assert worst.nats > 5 * max(others)


def test_every_matrix_has_its_bits_within_the_share(mixed: tuple[Path, int, list[Matrix]], bundle: Bundle) -> None:
    path, converted, matrices = mixed
    assert {each.matrix for each in matrices} == {
        name for name, parameter in bundle.model.named_parameters() if parameter.ndim == 2
    }
    left = 0.2 * sum(each.weights for each in matrices) - sum(each.weights for each in matrices if each.bits == 8)
    assert left >= 0
    assert all(each.weights > left for each in matrices if each.bits == 4)
    assert [each.nats / each.weights for each in matrices] == sorted(
        (each.nats / each.weights for each in matrices), reverse=True
    )
    nodes = onnx.load(str(path)).graph.node
    kinds = Counter(node.op_type for node in nodes)
    assert converted == kinds["MatMulNBits"] == expected_products(bundle.model)
    assert kinds["GatherBlockQuantized"] == 3
    assert kinds["MatMulNBits"] + kinds["GatherBlockQuantized"] == len(matrices)
    written = [
        item.i
        for node in nodes
        if node.op_type in ("MatMulNBits", "GatherBlockQuantized")
        for item in node.attribute
        if item.name == "bits"
    ]
    assert Counter(written) == Counter(each.bits for each in matrices)
    assert set(written) == {4, 8}


def test_the_same_twice(
    mixed: tuple[Path, int, list[Matrix]],
    bundle: Bundle,
    exported: Path,
    batches: list[dict[str, np.ndarray]],
    tmp_path: Path,
) -> None:
    path, converted, matrices = mixed
    assert mixed_in_blocks(exported, tmp_path / "again.onnx", form(), batches, 1, bundle.model) == (converted, matrices)
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def slowly_in_four_bits(weight: torch.Tensor) -> torch.Tensor:
    """Each row of [rows, columns], block by block, value by value."""
    rough = weight.clone()
    for row in rough:
        for at in range(0, len(row), 32):
            block = row[at : at + 32]
            step = float(max(block, key=abs)) / -8
            for place, value in enumerate(block.tolist()):
                block[place] = step * min(7, max(-8, round(value / step))) if step else 0.0
    return rough


def test_sensitivity_is_that_of_a_slow_reference(mixed: tuple[Path, int, list[Matrix]], bundle: Bundle) -> None:
    """In torch, a text at a time, without padding: KL of one matrix rounded alone."""
    parameters = dict(bundle.model.named_parameters())
    rows = FAMILY.encode(bundle.tokenizer, TEXTS, 32)

    def answers() -> torch.Tensor:
        with torch.inference_mode():
            inputs = [FAMILY.collate(bundle.tokenizer, [row]) for row in rows]
            logits = [FAMILY.forward(bundle.model, one).logits for one in inputs]
        return torch.cat(logits).double().log_softmax(-1)

    exact = answers()
    for name in (PLANTED, "classifier.weight", "bert.embeddings.position_embeddings.weight"):
        parameter = parameters[name]
        before = parameter.detach().clone()
        parameter.data = slowly_in_four_bits(before)
        expected = float((exact.exp() * (exact - answers())).sum(-1).mean())
        parameter.data = before
        (found,) = (each.nats for each in mixed[2] if each.matrix == name)
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-7), name
        assert expected > 1e-5, name


def test_shrink_measures_on_training_texts_and_answers_the_record(
    bundle: Bundle, exported: Path, tmp_path: Path
) -> None:
    split = Split(TEXTS, [0] * len(TEXTS))
    data = CleanData(split, split, split, ["a", "b", "c"], [], "")
    task = Task(type="text-classification", seed=17, max_length=32, threads=1)
    facts = shrink(exported, tmp_path / "model.onnx", FAMILY, bundle, data, task, form(calibration_rows=5))
    assert facts["matrices"][0].keys() == {"matrix", "weights", "nats", "bits"}
    (planted,) = (each for each in facts["matrices"] if each["matrix"] == PLANTED)
    assert planted["bits"] == 8
    assert (tmp_path / "model.onnx").stat().st_size < 0.5 * exported.stat().st_size


def test_at_equal_bytes_the_mix_is_nearer_than_its_inverse(bundle: Bundle, exported: Path, tmp_path: Path) -> None:
    """One matrix of a size at 8 bits: the planted one, or another layer's."""
    found = {}
    for name in (PLANTED, PLANTED.replace("layer.1", "layer.0")):
        path = tmp_path / f"{name}.onnx"
        open_mix(exported, NEAREST, bundle.model).write(path, [name], 4)
        found[name] = path.stat().st_size, distance(path, exported, bundle)
    (size, near), (other, far) = found.values()
    assert abs(size - other) < 16  # the names of constants
    assert near < 0.5 * far


def test_gptq_rounds_and_ranks_what_it_rounds(
    mixed: tuple[Path, int, list[Matrix]],
    bundle: Bundle,
    exported: Path,
    batches: list[dict[str, np.ndarray]],
    tmp_path: Path,
) -> None:
    out = tmp_path / "gptq.onnx"
    _, matrices = mixed_in_blocks(exported, out, form(rounding="gptq"), batches, 1, bundle.model)
    nearest = {each.matrix: each.nats for each in mixed[2]}
    changed = {each.matrix for each in matrices if each.nats != nearest[each.matrix]}
    assert PLANTED in changed
    assert "classifier.weight" not in changed  # heads and embeddings go to the nearest
    assert out.read_bytes() != mixed[0].read_bytes()


def test_nothing_altered_costs_nothing(exported: Path, bundle: Bundle, batches: list[dict[str, np.ndarray]]) -> None:
    mix = open_mix(exported, NEAREST, bundle.model)
    same = {name: {each.name: each.values for each in places} for name, places in mix.matrices.items()}
    assert set(divergences(mix.graph, same, batches, 1).values()) == {0.0}


def test_the_worst_for_their_size_come_first_and_what_does_not_fit_is_passed_over() -> None:
    lost, sizes = {"a": 1.0, "b": 9.0, "c": 3.0, "d": 0.5}, {"a": 10, "b": 60, "c": 20, "d": 10}
    assert most_sensitive(lost, sizes, 0.5) == {"a", "c", "d"}
    assert most_sensitive(lost, sizes, 0.85) == {"b", "c"}
    assert most_sensitive(dict.fromkeys(lost, 0.0), sizes, 0.1) == {"a"}
    with pytest.raises(ModelError, match=r"share_high 0\.05: none of 4 matrices is so small, the smallest has 0\.100"):
        most_sensitive(lost, sizes, 0.05)


def test_a_head_tied_to_its_embedding_is_one_matrix(made_once: MadeOnce, tmp_path: Path) -> None:
    """A generator's padding-free answers serve as a classifier's do, and the pair is stored once whatever its bits."""
    model, folder = made_once.model("gpt2")
    ids = np.random.default_rng(0).integers(2, 320, (2, 12))
    empty = {
        f"past_key_values.{layer}.{part}": np.zeros((2, 4, 0, 8), np.float32)
        for layer in range(3)
        for part in ("key", "value")
    }
    feed = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.tile(np.arange(12), (2, 1)),
        **empty,
    }
    sizes = {}
    for share in (0.05, 0.9):
        out = tmp_path / f"{share}.onnx"
        converted, matrices = mixed_in_blocks(folder / "model.onnx", out, form(share_high=share), [feed], 1, model)
        assert converted == expected_products(model)
        (tied,) = (each for each in matrices if each.weights == 320 * 32)
        assert all(each.nats > 0 for each in matrices)
        codes = [
            item for item in onnx.load(str(out)).graph.initializer if item.dims[:1] == [320] and item.data_type == 2
        ]
        assert len(codes) == 1
        sizes[tied.bits] = out.stat().st_size
    assert set(sizes) == {4, 8}
