"""What tests of a fan spread: small works, in a module that a worker's process can import, and an elastic student that learnt nothing."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.config import StudentLayers
from pipelines.data.clean import load_clean, write_clean
from pipelines.data.rows import Row
from pipelines.errors import DivergedError, ModelError
from pipelines.exploring.units import Recovering, open_recovering
from pipelines.exploring.workshop import Workshop, open_workshop
from pipelines.families import family_of
from pipelines.stages.label import label
from tests.recipes import BY_BUDGET, recipe
from tests.tiny import tiny_model, tiny_rows


@dataclass(frozen=True)
class Doing:
    """Does what an item says."""

    folder: Path

    def __call__(self, item: str) -> str:
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "sleep":
            (self.folder / f"asleep-{os.getpid()}").touch()
            time.sleep(120)
        if item == "refuse":
            raise ModelError("model.onnx: differs from torch by 3.0")
        if item == "diverge":
            raise DivergedError("the loss is nan; lower training.learning_rate", None)
        if item == "break":
            raise KeyError("nobody foresaw this")
        (self.folder / item).touch()
        return f"{item} done"


class Missing:
    """A work whose folder is not there where it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return opened_elsewhere, ("/nowhere/student",)

    def __call__(self, item: str) -> str:
        return item


def opened_elsewhere(folder: str) -> Missing:
    raise ModelError(f"{folder}: no such folder; a model is a folder with config.json")


def untaught(folder: Path) -> tuple[Workshop, Recovering]:
    """What `explore` and `prune` open of a tiny elastic student, whose weights are as they were drawn."""
    block = recipe(**BY_BUDGET)
    splits = ["train", "train", "train", "validation"]
    rows = [Row(splits[at % 4], "tiny.csv", at, *row) for at, row in enumerate(tiny_rows())]
    write_clean(folder / "data", [*rows, *(row._replace(split="test") for row in rows[3::4])], [], block.data)
    data, family = load_clean(folder / "data"), family_of(block.task)
    teacher = family.load_pretrained(tiny_model(folder / "body"), data.labels)
    student = family.student(teacher, StudentLayers(kind="layers", layers=[0, 1, 2]))
    student.lineage = {"stages": [{"stage": "distill", "params": {"student": block.distill.student.model_dump()}}]}
    family.save(student, folder / "student")
    label(folder / "data", folder / "student", folder / "signals", block.task, block.label)
    workshop = open_workshop(folder / "student", folder / "data", block.task, block.explore)
    return workshop, open_recovering(
        folder / "student",
        folder / "data",
        folder / "signals",
        np.ones(len(data.validation.texts), dtype=bool),
        block.task,
        block.prune,
    )
