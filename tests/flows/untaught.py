"""A tiny elastic student that learnt nothing, as `explore` and `prune` open it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

from pipelines.bundle import WITHOUT_LAYERS, Bundle, sha256_of
from pipelines.config import Budget, StudentLayers, StudentStatic
from pipelines.data.clean import load_clean, write_clean
from pipelines.data.rows import Row
from pipelines.exploring.measuring import exports_of
from pipelines.exploring.points import Point
from pipelines.exploring.recoveries import Recovering, open_recovering
from pipelines.exploring.targets import reach
from pipelines.exploring.units import Answering
from pipelines.exploring.workshop import Workshop, open_workshop
from pipelines.exploring.yardsticks import right_counts
from pipelines.families import family_of
from pipelines.fanning import Fan
from pipelines.stages.label import label
from pipelines.techniques.course import Unkept
from pipelines.techniques.shapes import Slice
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
    student.lineage = {
        "stages": [{"stage": "distill", "params": {"student": block.distill.student.model_dump()}, "levers": []}]
    }
    bare = family.student(teacher, StudentStatic(kind="static", hidden_size=24))
    family.save(student, folder / "student")
    family.save(Bundle(bare.model, bare.tokenizer, student.lineage), folder / "student" / WITHOUT_LAYERS)
    label(folder / "data", folder / "student", folder / "signals", block.task, block.label)
    workshop = open_workshop(folder / "student", folder / "data", block.task, block.explore)
    return workshop, open_recovering(
        folder / "student",
        folder / "data",
        folder / "signals",
        right_counts(np.ones(len(data.validation.texts), dtype=bool)),
        block.task,
        block.prune,
        Unkept(),
    )


def boundless() -> Budget | None:
    """A budget that every point holds."""
    none = {"max_bytes": None, "max_p50_ms": 1000.0, "max_accuracy_loss": 100}
    return recipe(**BY_BUDGET | {"budget": BY_BUDGET["budget"] | none}).budget


def a_point(part: Slice, order: int) -> Point:
    """A part as the front has it; the first is the cheapest."""
    shape = {"layers": ",".join(map(str, part.layers)), "intermediate_size": part.intermediate_size}
    figures = dict.fromkeys([each.name for each in fields(Point)], 1.0) | {
        "bytes": 1000 + order,
        "loss": 0.0,
    }
    return Point(**figures | shape | {"num_attention_heads": 4, "vocabulary": 0, "quantization": "int8"})


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def exported(fan: Fan, workshop: Workshop, place: Path) -> tuple[dict[str, str], list[list[list[int]]]]:
    """Digests of two parts in every quantization, and what they answer."""
    place.mkdir()
    names = list(workshop.settings.quantizations)
    with exports_of(workshop, fan, reach(workshop.settings.target), place) as exports:
        folders = exports.of(
            [(part, name) for part in (workshop.space[0], workshop.space[-1]) for name in names], "try"
        )
        answers = [
            counts.tolist() for counts in fan.map(Answering(workshop.folders[1], workshop.task, 1, None), folders)
        ]
        return files(exports.place), answers
