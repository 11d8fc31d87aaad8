"""A tiny elastic student that learnt nothing, as `explore` and `prune` open it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.config import StudentLayers
from pipelines.data.clean import load_clean, write_clean
from pipelines.data.rows import Row
from pipelines.exploring.units import Recovering, open_recovering
from pipelines.exploring.workshop import Workshop, open_workshop
from pipelines.families import family_of
from pipelines.stages.label import label
from tests.recipes import BY_BUDGET, recipe
from tests.tiny import tiny_model, tiny_rows


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
