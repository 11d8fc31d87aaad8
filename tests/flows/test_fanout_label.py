"""The stage `label` over two processes of Prefect's: the bytes of one, and nothing left beside them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipelines import fanning
from pipelines.bundle import sha256_of
from pipelines.config import ClassificationRecipe, SequenceRecipe
from pipelines.fanning import VARIABLE
from pipelines.sequences import labelling
from pipelines.stages.label import label
from pipelines.stages.teach import teach
from pipelines.stages.validate import validate
from pipelines.techniques.course import Unkept
from tests.flows.local_clusters import CLUSTERS
from tests.flows.test_fanout import seeing_us
from tests.recipes import recipe
from tests.sequence_chain import Chain, clean_data
from tests.tiny import tiny_model, tiny_rows, write_csv
from tests.tiny_generators import tiny_causal


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def classifier(folder: Path) -> tuple[ClassificationRecipe, Path, Path]:
    body = tiny_model(folder / "body")
    block = recipe(
        teach__source=str(body),
        teach__sha256=sha256_of(body / "model.safetensors"),
        label__hidden_layers=[0, 1],
        label__relations=True,
    )
    validate(
        str(write_csv(folder / "tiny.csv", tiny_rows())), folder / "data", folder / "report", block.task, block.data
    )
    teach(folder / "data", folder / "teacher", folder / "t.csv", block.task, block.teach, Unkept())
    return block, folder / "data", folder / "teacher"


def writer(folder: Path, signals: dict[str, object]) -> tuple[SequenceRecipe, Path, Path]:
    chain = Chain(
        "text-generation",
        tiny_causal(folder / "body", "llama"),
        clean_data(folder, "text-generation"),
        folder,
        frozenset(),
    )
    texts = {"rows": 6, "prompt_tokens": 4, "max_new_tokens": 8, "temperature": 1.0, "replace": False}
    return chain.recipe(label__signals=signals, label__texts=texts), chain.clean, chain.teacher


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("kind", ["classifier", "sampled"])
def test_two_processes_write_what_one_does(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanning, "PIECE", 2)  # so that there are many
    made = {
        "classifier": classifier,
        "sampled": lambda folder: writer(folder, {"kind": "sampled", "k": 8}),
    }
    block, clean, teacher = made[kind](tmp_path)
    label(clean, teacher, tmp_path / "one", block.task, block.label)
    waited: list[Path] = []
    filed = fanning.np.load
    monkeypatch.setattr(fanning.np, "load", lambda path, **how: (waited.append(path), filed(path, **how))[1])
    monkeypatch.setenv(VARIABLE, "flows.fanout:processes:2")
    before = dict(os.environ)
    label(clean, teacher, tmp_path / "two", block.task, block.label)
    assert dict(os.environ) == before
    pieces = [path for path in waited if path.parent.name.startswith("pieces-")]
    assert len(pieces) > 1 or os.cpu_count() == 1
    assert files(tmp_path / "two") == files(tmp_path / "one")


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_cluster_of_two_workers_writes_what_one_process_does(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanning, "PIECE", 2)
    block, clean, teacher = classifier(tmp_path)
    label(clean, teacher, tmp_path / "one", block.task, block.label)
    with CLUSTERS[kind](tmp_path, seeing_us()) as workers:
        monkeypatch.setenv(VARIABLE, f"flows.fanout:{workers}")
        label(clean, teacher, tmp_path / "two", block.task, block.label)
    assert files(tmp_path / "two") == files(tmp_path / "one")


@pytest.mark.usefixtures("api")
def test_what_a_killed_run_left_of_pieces_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumable folder keeps its finished examples; answers that nobody had read are asked for again, whoever answers now."""
    block, clean, teacher = writer(tmp_path, {"kind": "top_k", "k": 8})
    label(clean, teacher, tmp_path / "one", block.task, block.label)
    monkeypatch.setattr(fanning, "PIECE", 1)
    for workers in ("", "flows.fanout:processes:2"):
        monkeypatch.setenv(VARIABLE, workers)
        two = tmp_path / f"two{workers[-1:]}"
        left = two / "pieces-0a1b2c3d"
        left.mkdir(parents=True)
        shutil.copy(tmp_path / "one" / labelling.FACTS, two)
        (left / "0.npz").write_bytes(b"half")
        label(clean, teacher, two, block.task, block.label)
        assert files(two) == files(tmp_path / "one")
