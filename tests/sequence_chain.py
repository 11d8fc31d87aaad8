"""One architecture through the real stages, each step at most once, for the matrix of families."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import Bundle, sha256_of
from pipelines.config import SequenceRecipe
from pipelines.data.clean import load_clean
from pipelines.families import load_bundle, sequence_family_of
from pipelines.sequences.exporting import shrink
from pipelines.stages.distill import distill
from pipelines.stages.label import label
from pipelines.stages.prune import prune
from pipelines.stages.quantize import quantize
from pipelines.stages.teach import teach
from pipelines.stages.validate import validate
from pipelines.techniques.course import Unkept
from pipelines.techniques.exporting import open_session
from tests.families_cells import CUTS
from tests.sequence_recipes import SEQUENCE_TRAINING, sequence_recipe, write_rows

#: Key under `prune` -> what a tiny model of three layers is cut to.
TARGETS: dict[str, Any] = {
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "hidden_size": 16,
    "num_experts": 2,
    "vocabulary": {"min_count": 1, "keep_first": 0},
}
NOTHING: dict[str, Any] = {f"prune__{key}": None for key in TARGETS}
ONE_EPOCH = SEQUENCE_TRAINING | {"epochs": 1}
_FOUR_BITS = {
    "technique": "blockwise",
    "parity": 1e-3,
    "bits": 4,
    "head_bits": 4,
    "embedding_bits": None,
    "block_size": 16,
    "symmetric": False,
    "accuracy_level": 0,
    "calibration_rows": 8,
}
QUANTIZED: dict[str, dict[str, Any]] = {
    "int8": {"technique": "dynamic_int8", "parity": 1e-3, "per_channel": True, "embeddings": None},
    "int4": _FOUR_BITS | {"rounding": "nearest"},
    "GPTQ": _FOUR_BITS | {"rounding": "gptq"},
}


def clean_data(folder: Path, task: str) -> Path:
    """The tiny corpus of a task after `validate`."""
    recipe = sequence_recipe(task)
    validate(str(write_rows(folder / "rows.csv")), folder / "data", folder / "report", recipe.task, recipe.data)
    return folder / "data"


@dataclass(frozen=True)
class Chain:
    """teach, label, distill, prune, quantize of one architecture; what cannot be cut of it is left as it is."""

    task: str
    source: Path
    clean: Path
    folder: Path
    uncut: frozenset[str]
    trusted: dict[str, str] | None = None

    def recipe(self, **changes: Any) -> SequenceRecipe:
        """The recipe of this chain with values changed."""
        tagging = self.task == "token-classification"
        given = {"source": str(self.source), "sha256": sha256_of(self.source / "model.safetensors")}
        trusted = {"files": self.trusted} if self.trusted is not None else None
        teacher = given | {"mode": "ready", "trust_remote_code": trusted}
        # A body has no tags yet.
        teacher |= {"mode": "finetune", "training": SEQUENCE_TRAINING} if tagging else {}
        student = {"kind": "layers", "layers": [0, 1, 2]}
        return sequence_recipe(self.task, **({"teach": teacher, "distill__student": student} | changes))

    @cached_property
    def teacher(self) -> Path:
        block = self.recipe()
        teach(self.clean, self.folder / "teacher", self.folder / "teach.csv", block.task, block.teach, Unkept())
        return self.folder / "teacher"

    @cached_property
    def signals(self) -> Path:
        return self.labelled("signals")

    @cached_property
    def student(self) -> Path:
        return self.distilled("student", self.signals)

    @cached_property
    def pruned(self) -> Path:
        """Everything cut that this architecture lets be cut."""
        cuts = {f"prune__{key}": TARGETS[key] for column, key in CUTS.items() if column not in self.uncut}
        return self.cut("pruned", cuts)

    @cached_property
    def exported(self) -> Path:
        """The pruned student in float32, held against torch by the stage itself."""
        block = self.recipe()
        quantize(self.clean, self.pruned, self.folder / "float32", block.task, block.quantize)
        return self.folder / "float32"

    @cached_property
    def bundle(self) -> Bundle:
        """The pruned student, loaded."""
        return load_bundle(self.pruned, self.recipe().task)

    def labelled(self, name: str, **changes: Any) -> Path:
        block = self.recipe(**changes)
        label(self.clean, self.teacher, self.folder / name, block.task, block.label)
        return self.folder / name

    def distilled(self, name: str, signals: Path, **changes: Any) -> Path:
        block, curve = self.recipe(**changes), self.folder / f"{name}.csv"
        distill(self.clean, signals, self.teacher, self.folder / name, curve, block.task, block.distill, Unkept())
        return self.folder / name

    def cut(self, name: str, changes: dict[str, Any]) -> Path:
        block, curve = self.recipe(**(NOTHING | changes)), self.folder / f"{name}.csv"
        prune(
            self.clean,
            self.signals,
            self.student,
            self.folder,
            self.folder / name,
            curve,
            block.task,
            None,
            block.prune,
            Unkept(),
        )
        return self.folder / name

    def quantized(self, technique: str) -> tuple[Path, dict[str, int]]:
        """The same float32 files made smaller, and how many matrices of each were converted."""
        block = self.recipe(quantize=QUANTIZED[technique])
        out = self.folder / technique
        shutil.copytree(self.exported, out, ignore=shutil.ignore_patterns("*.onnx"))
        family, names = sequence_family_of(block.task), [path.name for path in sorted(self.exported.glob("*.onnx"))]
        examples = family.examples(self.bundle, load_clean(self.clean).train, block.task.max_length)
        facts = shrink(family, self.bundle, self.exported, names, out, examples, block.task, block.quantize)
        return out, facts["converted_matrices"]

    def distance(self, quantized: Path) -> float:
        """How far the last file's first output is from float32's: norm of the difference by norm, over training examples."""
        block = self.recipe()
        family = sequence_family_of(block.task)
        examples = family.examples(self.bundle, load_clean(self.clean).train, block.task.max_length)[:8]
        feeds = family.feeds(self.bundle, self.exported, examples)
        name = sorted(feeds)[0]
        exact, rough = (open_session(folder / name, threads=1) for folder in (self.exported, quantized))
        pairs = [(exact.run(None, feed)[0], rough.run(None, feed)[0]) for feed in feeds[name]]
        off = sum(float(np.square(one - other).sum()) for one, other in pairs)
        return float(np.sqrt(off / sum(float(np.square(one).sum()) for one, _ in pairs)))


def losses_of(curve: Path) -> list[float]:
    """The training loss of each epoch of a curve."""
    return [float(row.split(",")[2]) for row in curve.read_text().splitlines()[1:]]
