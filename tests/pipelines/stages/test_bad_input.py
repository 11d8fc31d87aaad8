"""What goes wrong in the stages of models that answer token by token, and what a user is told. The rest: test_matrix_own_code.py (code
without permission), families/test_tagging.py and families/test_encoder.py (tensors), remote_teacher/ (endpoints), test_validate.py (rows)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from torch import Tensor

from pipelines.__main__ import run
from pipelines.bundle import sha256_of
from pipelines.errors import DivergedError, ModelError, ResourceError
from pipelines.families.causal import CausalModel
from pipelines.families.context import context_of
from pipelines.techniques import token_learning
from tests.families_cells import ENCODERS
from tests.sequence_chain import clean_data
from tests.sequence_recipes import sequence_recipe_dict
from tests.tiny import tiny_config, tiny_model
from tests.tiny_generators import tiny_causal, tiny_seq2seq

FILES = {"signals": "signals", "teacher": "teacher", "student": "student", "curve": "curve.csv"}
INPUTS = {"teach": (), "label": ("teacher",), "distill": ("signals", "teacher")}
OUTPUTS = {"teach": ("teacher", "curve"), "label": ("signals",), "distill": ("student", "curve")}


class Project:
    """A folder with one recipe, whose stages run as `python -m pipelines` runs them."""

    def __init__(self, root: Path, task: str, source: Path, clean: Path) -> None:
        self.root, self.task, self.clean = root, task, clean
        self.teacher = {
            "mode": "ready",
            "source": str(source),
            "sha256": sha256_of(source / "model.safetensors"),
            "trust_remote_code": None,
        }

    def run(self, stage: str, into: Path | None = None, **changes: Any) -> Path:
        """One stage; its outputs, into another folder where asked."""
        recipe = sequence_recipe_dict(self.task, **({"teach": self.teacher} | changes))
        params = self.root / "params.yaml"
        params.write_text(yaml.safe_dump({"models": {"m": recipe}}))
        outputs = into or self.root
        files = {name: self.root / FILES[name] for name in INPUTS[stage]}
        files |= {"clean": self.clean} | {name: outputs / FILES[name] for name in OUTPUTS[stage]}
        options = [part for name, path in files.items() for part in (f"--{name}", str(path))]
        run(stage, ["m", "--params", str(params), *options])
        return outputs


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    tasks = ("text-generation", "text-to-text", "token-classification")
    return {task: clean_data(tmp_path_factory.mktemp("clean"), task) for task in tasks}


@pytest.fixture(scope="module")
def labelled(clean: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A causal model up to its signals."""
    root = tmp_path_factory.mktemp("project")
    project = Project(root, "text-generation", tiny_causal(root / "source", "gpt2"), clean["text-generation"])
    project.run("teach")
    project.run("label")
    return project


def makers() -> dict[str, tuple[str, Callable[[Path], Path]]]:
    return {
        "gpt2": ("text-generation", lambda folder: tiny_causal(folder, "gpt2")),
        "llama": ("text-generation", lambda folder: tiny_causal(folder, "llama")),
        "bart": ("text-to-text", lambda folder: tiny_seq2seq(folder, "bart")),
        "bert": ("token-classification", tiny_model),
    }


@pytest.mark.parametrize("kind", makers())
def test_a_text_longer_than_the_context_is_refused_before_anything_is_done(
    clean: Mapping[str, Path], tmp_path: Path, kind: str
) -> None:
    task, make = makers()[kind]
    project = Project(tmp_path, task, make(tmp_path / "source"), clean[task])
    changes: dict[str, Any] = {"task__max_length": 65}
    if task == "token-classification":
        settings = sequence_recipe_dict(task)["distill"]["training"]
        changes["teach"] = project.teacher | {"mode": "finetune", "training": settings}
    message = (
        r"task\.max_length is 65, but the model of teach\.source .* reads at most 64 tokens; lower task\.max_length"
    )
    with pytest.raises(ModelError, match=message):
        project.run("teach", **changes)
    if task == "text-to-text":
        with pytest.raises(ModelError, match=r"task\.max_target_length is 65, but"):
            project.run("teach", task__max_target_length=65)
    assert not (tmp_path / "teacher").exists()


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_context_is_as_long_as_a_text_may_be(kind: str) -> None:
    """A text of so many tokens goes through, and where a table of positions ends one more does not."""
    model = transformers.AutoModel.from_config(tiny_config(kind, 50)).eval()
    limit = context_of(model)
    if limit is None:
        assert kind == "deberta-v2"
        return
    ids = torch.full((1, limit + 1), 7)
    model(input_ids=ids[:, :-1])
    rotated = ("modernbert", "eurobert")  # one position more is computed, as what they never saw
    if kind not in rotated:
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=ids)


def test_of_a_loss_that_is_no_number_the_last_good_epoch_is_kept(
    labelled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, scored, called = token_learning.lesson_loss, token_learning.score_tokens, {"epochs": 0}

    def loss(*given: Any) -> Tensor:
        return real(*given) * (math.nan if called["epochs"] else 1.0)

    def score(*given: Any) -> Any:
        called["epochs"] += 1
        return scored(*given)

    monkeypatch.setattr(token_learning, "lesson_loss", loss)
    monkeypatch.setattr(token_learning, "score_tokens", score)
    message = r"distill, epoch 2: the loss is nan on the batch of texts \[\d.*lower training\.learning_rate; the best epoch.s weights are in .*student\.last-good"
    with pytest.raises(DivergedError, match=message):
        labelled.run("distill", tmp_path)
    assert not (tmp_path / "student").exists()
    kept = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "student.last-good")
    weights = dict(kept.named_parameters())
    assert kept.config.num_hidden_layers == 2 and all(torch.isfinite(weight).all() for weight in weights.values())


def test_without_memory_the_batch_is_halved_and_the_log_says_so(
    labelled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = CausalModel.rows

    def rows(self: CausalModel, model: Any, batch: Any) -> Any:
        if model.training and len(batch.inputs["input_ids"]) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return real(self, model, batch)

    monkeypatch.setattr(CausalModel, "rows", rows)
    labelled.run("distill", tmp_path)
    assert "texts at once; going on with 2" in capsys.readouterr().err
    assert (tmp_path / "student" / "model.safetensors").exists()


def test_memory_that_never_suffices_is_one_clear_error(
    labelled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(*_: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(CausalModel, "rows", rows)
    message = r"label: out of memory \(DefaultCPUAllocator: .*\); lower its batch_size or task\.max_length"
    with pytest.raises(ResourceError, match=message):
        labelled.run("label", tmp_path)


def test_a_teacher_that_writes_nothing_is_refused(
    labelled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"rows": 4, "prompt_tokens": 4, "max_new_tokens": 4, "temperature": 0.0, "replace": True}
    monkeypatch.setattr("pipelines.families.causal.written", lambda *_, **__: [[]] * 4)
    message = r"label\.texts: the teacher wrote nothing; set it to null, or raise max_new_tokens or the temperature"
    with pytest.raises(ModelError, match=message):
        labelled.run("label", tmp_path, label__texts=texts)


@pytest.mark.parametrize("flaw", ["missing", "extra", "shape"])
def test_a_checkpoints_tensors_are_named(clean: Mapping[str, Path], tmp_path: Path, flaw: str) -> None:
    from safetensors.torch import load_file, save_file

    source = tiny_causal(tmp_path / "source", "llama")
    path, name = source / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(path)
    if flaw == "missing":
        del tensors[name]
    elif flaw == "extra":
        tensors["model.layers.7.mlp.up_proj.weight"] = tensors[name].clone()
    else:
        tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    message = {
        "missing": rf"lacks {name}; random weights would stand in for them, get a complete checkpoint",
        "extra": r"holds model\.layers\.7\.mlp\.up_proj\.weight, which this architecture does not read",
        "shape": rf"holds {name} \[63, 32\] for \[64, 32\] that config\.json asks for",
    }[flaw]
    with pytest.raises(ModelError, match=message):
        Project(tmp_path, "text-generation", source, clean["text-generation"]).run("teach")
