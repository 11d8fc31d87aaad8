"""The encoder family on tiny random models of every architecture that it serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipelines.bundle import Bundle
from pipelines.config import StudentLayers, StudentRandom
from pipelines.errors import ModelError
from pipelines.families.anatomy import ANATOMIES
from pipelines.families.encoder import EncoderClassifier
from tests.tiny import tiny_model

LABELS = ["login", "parcel", "refund"]
TEXTS = ["where is my parcel", "refund", "i cannot log in please help friend"]
FAMILY = EncoderClassifier()


@pytest.fixture(params=sorted(ANATOMIES))
def teacher(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return FAMILY.load_pretrained(tiny_model(tmp_path / "body", request.param), LABELS)


@pytest.fixture
def bert(tmp_path: Path) -> Bundle:
    return FAMILY.load_pretrained(tiny_model(tmp_path / "body"), LABELS)


def logits(bundle: Bundle, texts: list[str] = TEXTS) -> torch.Tensor:
    rows = FAMILY.encode(bundle.tokenizer, texts, 32)
    with torch.inference_mode():
        return FAMILY.forward(bundle.model, FAMILY.collate(bundle.tokenizer, rows)).logits


def test_save_and_load_keep_the_function(teacher: Bundle, tmp_path: Path) -> None:
    FAMILY.save(teacher, tmp_path / "out")
    assert torch.equal(logits(FAMILY.load(tmp_path / "out")), logits(teacher))


def test_a_student_of_all_layers_is_the_teacher(teacher: Bundle) -> None:
    student = FAMILY.student(teacher, StudentLayers(kind="layers", layers=[0, 1, 2]))
    assert torch.equal(logits(student), logits(teacher))
    smaller = FAMILY.student(teacher, StudentLayers(kind="layers", layers=[0, 2]))
    assert FAMILY.depth(smaller.model) == 2
    assert FAMILY.teacher_layers(smaller.model) == [0, 2]
    assert FAMILY.depth(teacher.model) == 3  # the teacher is left alone


def test_a_fresh_student_shares_no_weights(teacher: Bundle) -> None:
    student = FAMILY.student(teacher, StudentRandom(kind="random", num_hidden_layers=2))
    assert FAMILY.depth(student.model) == 2
    assert FAMILY.teacher_layers(student.model)[-1] == 2
    assert not torch.allclose(logits(student), logits(teacher))


def test_layers_beyond_the_teacher_are_refused(bert: Bundle) -> None:
    with pytest.raises(ModelError, match=r"layers \[0, 9\]: the teacher has layers 0 to 2"):
        FAMILY.student(bert, StudentLayers(kind="layers", layers=[0, 9]))


def test_positions_beyond_max_length_go_without_a_trace(teacher: Bundle, tmp_path: Path) -> None:
    before = logits(teacher)
    FAMILY.trim_positions(teacher.model, 32)
    assert torch.allclose(logits(teacher), before, atol=1e-6)
    FAMILY.save(teacher, tmp_path / "out")
    assert torch.allclose(logits(FAMILY.load(tmp_path / "out")), before, atol=1e-6)


def test_hidden_states_and_relations_have_a_vector_a_token(teacher: Bundle) -> None:
    inputs = FAMILY.collate(teacher.tokenizer, FAMILY.encode(teacher.tokenizer, TEXTS, 32))
    outputs = FAMILY.forward(teacher.model, inputs, hidden=[0, 2], relations=True)
    batch, length = inputs["input_ids"].shape
    assert {layer: states.shape[:2] for layer, states in outputs.hidden.items()} == dict.fromkeys(
        (0, 2), (batch, length)
    )
    assert [states.shape[:2] for states in outputs.relations] == [(batch, length)] * 3
    assert outputs.mask.sum(1).tolist() == [len(row) for row in FAMILY.encode(teacher.tokenizer, TEXTS, 32)]


def test_calibrated_logits(teacher: Bundle) -> None:
    before, biases = logits(teacher), torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
    FAMILY.calibrate(teacher.model, 2.0, biases)
    assert torch.allclose(logits(teacher), before / 2 + biases.float(), atol=1e-6)


def test_a_ready_teachers_labels_are_put_in_the_datas_order(bert: Bundle, tmp_path: Path) -> None:
    bert.model.config.id2label = {0: "refund", 1: "login", 2: "parcel"}
    FAMILY.save(bert, tmp_path / "ready")
    ready = FAMILY.load_ready(tmp_path / "ready", LABELS)
    assert torch.equal(logits(ready), logits(bert)[:, [1, 2, 0]])
    assert list(ready.model.config.id2label.values()) == LABELS


def test_a_ready_teacher_with_other_labels_is_refused(bert: Bundle, tmp_path: Path) -> None:
    FAMILY.save(bert, tmp_path / "ready")
    with pytest.raises(ModelError, match=r"only the teacher has parcel, only the data has delivery"):
        FAMILY.load_ready(tmp_path / "ready", ["login", "delivery", "refund"])


def test_a_folder_without_tokenizer_is_named(bert: Bundle, tmp_path: Path) -> None:
    FAMILY.save(bert, tmp_path / "out")
    (tmp_path / "out" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"out: tokenizer\.json missing; a usable model folder holds"):
        FAMILY.load_pretrained(tmp_path / "out", LABELS)


def test_a_damaged_config_is_an_error_of_ours(bert: Bundle, tmp_path: Path) -> None:
    FAMILY.save(bert, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: not valid JSON"):
        FAMILY.load(tmp_path / "out")


def test_an_architecture_outside_the_table_is_named(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "body")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "electra", "architectures": ["ElectraModel"]})
    )
    with pytest.raises(ModelError, match="'electra' is not served"):
        FAMILY.load_pretrained(folder, LABELS)


def test_saved_folders_hold_no_path_of_the_machine(teacher: Bundle, tmp_path: Path) -> None:
    FAMILY.save(teacher, tmp_path / "out")
    for file in (tmp_path / "out").glob("*.json"):
        assert str(tmp_path) not in file.read_text(encoding="utf-8"), file.name


@pytest.mark.parametrize("reader", ["load", "load_pretrained"])
def test_a_checkpoint_that_lacks_tensors_is_refused(bert: Bundle, tmp_path: Path, reader: str) -> None:
    from safetensors.torch import load_file, save_file

    FAMILY.save(bert, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    tensors = load_file(path)
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks bert\.encoder\.layer\.1\.output\.dense\.weight; random weights would stand in"
    ):
        FAMILY.load(tmp_path / "out") if reader == "load" else FAMILY.load_pretrained(tmp_path / "out", LABELS)


@pytest.mark.parametrize("reader", ["load", "load_pretrained"])
def test_a_tensor_of_another_shape_is_named(bert: Bundle, tmp_path: Path, reader: str) -> None:
    FAMILY.save(bert, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 40}))
    with pytest.raises(
        ModelError, match=r"holds bert\.embeddings\.position_embeddings\.weight \[64, 32\] for \[40, 32\]"
    ):
        FAMILY.load(tmp_path / "out") if reader == "load" else FAMILY.load_pretrained(tmp_path / "out", LABELS)


def test_a_head_of_another_size_is_left_aside_where_the_teacher_is_to_learn(bert: Bundle, tmp_path: Path) -> None:
    FAMILY.save(bert, tmp_path / "out")
    assert FAMILY.load_pretrained(tmp_path / "out", ["yes", "no"]).model.config.num_labels == 2


@pytest.mark.parametrize("content", [b"<html>not a model</html>", None])
@pytest.mark.parametrize("reader", ["load", "load_pretrained"])
def test_a_damaged_weights_file_is_named(bert: Bundle, tmp_path: Path, reader: str, content: bytes | None) -> None:
    FAMILY.save(bert, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    path.write_bytes(content or path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged or cut short .* get the file again"):
        FAMILY.load(tmp_path / "out") if reader == "load" else FAMILY.load_pretrained(tmp_path / "out", LABELS)
