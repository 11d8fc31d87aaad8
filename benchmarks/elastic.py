"""`make bench-elastic`: parts of an elastic student beside the same shapes distilled alone, on validation data, over seeds.

One teacher and its signals serve all. What is done stands in rows.json below the work folder, so a run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.chain import SHARED, begin_beside, identity, recipe_for, run
from benchmarks.pages import load, machine, write_section
from benchmarks.unlabelled import with_unlabelled
from pipelines.environment import disable_telemetry, quiet_libraries
from pipelines.techniques.course import Unkept
from pipelines.techniques.shapes import Slice

if TYPE_CHECKING:
    from pipelines.bundle import Bundle
    from pipelines.config import ClassificationRecipe
    from pipelines.data.clean import CleanData

SEEDS = (17, 18, 19)
#: All depths of the board's elastic student, wide and narrow; the vocabulary is that of the training text.
SHAPES = (Slice((0, 2, 5), 768, 12, 1), Slice((2, 5), 1536, 12, 1), Slice((5,), 768, 12, 1), Slice((2, 5), 256, 4, 1))
#: How a shape was made: distilled and pruned alone, cut out of the elastic student, and recovered after that.
ALONE, CUT, RECOVERED = "alone", "cut", "recovered"


@dataclass(frozen=True)
class Row:
    """Share of validation texts that one student of a shape answers rightly."""

    shape: str
    seed: int
    side: str
    accuracy: float


@dataclass(frozen=True)
class Board:
    """The board's recipes of a data set: of a fixed shape, and of the elastic student."""

    fixed: dict[str, Any]
    front: dict[str, Any]


def board_of(name: str, source: Path, share: float) -> Board:
    """Both, with a share of their passes."""
    return Board(*(shortened(recipe_for(name, source, kind), share) for kind in ("", "-front")))


def shortened(recipe: Mapping[str, Any], share: float) -> dict[str, Any]:
    """A recipe of the board with a share of the passes of each of its trainings, one at least."""
    found = copy.deepcopy(dict(recipe))
    student = found["distill"]["student"]
    for training in (found["teach"]["training"], found["distill"]["training"], found["prune"]["recovery"]):
        training["epochs"] = max(1, round(share * training["epochs"]))
        training["patience"] = min(training["patience"], training["epochs"])
    if student["kind"] == "elastic":
        student["whole_epochs"] = max(1, round(share * student["whole_epochs"]))
        student["without_layers"] = None  # it learns by itself, beside the parts that are looked at here
    return found


def alone(recipe: Mapping[str, Any], front: Mapping[str, Any], shape: Slice, seed: int) -> dict[str, Any]:
    """The board's recipe of a fixed shape, for this one."""
    found = copy.deepcopy(dict(recipe))
    found["task"]["seed"] = seed
    found["distill"]["student"] = {"kind": "layers", "layers": list(shape.layers)}
    found["prune"] |= {
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads": shape.num_attention_heads,
        "vocabulary": front["distill"]["student"]["vocabularies"][shape.vocabulary],
    }
    return found


def accuracy_of(bundle: Bundle, recipe: ClassificationRecipe, data: CleanData) -> float:
    """Share of validation texts that a student answers rightly, in torch."""
    from pipelines.families import family_of
    from pipelines.techniques.scoring import score

    family = family_of(recipe.task)
    rows = family.encode(bundle.tokenizer, data.validation.texts, recipe.task.max_length)
    return score(family, bundle.model, bundle.tokenizer, rows, data.validation.labels).accuracy


def rows_alone(name: str, board: Board, work: Path, seed: int, shapes: Sequence[Slice]) -> Iterator[Row]:
    """Each shape by itself."""
    from pipelines.config import ClassificationRecipe
    from pipelines.data.clean import load_clean
    from pipelines.families import family_of

    for at, shape in enumerate(shapes):
        folder = work / f"alone-{seed}-{at}"
        made = begin_beside(name, work / "shared", folder)
        recipe = alone(board.fixed, board.front, shape, seed)
        run(name, recipe, folder, ("distill", "prune"))
        checked = ClassificationRecipe.model_validate(recipe)
        bundle = family_of(checked.task).load(made / "pruned")
        yield Row(str(shape), seed, ALONE, accuracy_of(bundle, checked, load_clean(made / "data")))
        shutil.rmtree(folder)


def rows_elastic(name: str, board: Board, work: Path, seed: int, shapes: Sequence[Slice]) -> Iterator[Row]:
    """Each shape as it is cut out of one elastic student, and once recovered."""
    import numpy as np

    from pipelines.config import ChosenPruning, ClassificationRecipe
    from pipelines.exploring.recoveries import open_recovering
    from pipelines.reproducible import fixed

    folder = work / f"elastic-{seed}"
    made = begin_beside(name, work / "shared", folder)
    raw = copy.deepcopy(board.front)
    raw["task"]["seed"] = seed
    run(name, raw, folder, ("distill",))
    recipe = ClassificationRecipe.model_validate(raw)
    task, wanted = recipe.task, recipe.prune
    assert isinstance(wanted, ChosenPruning)
    nobody = np.zeros(0, dtype=bool)  # no part is compared with the teacher here
    recovering = open_recovering(made / "student", made / "data", made / "signals", nobody, task, wanted, Unkept())
    for shape in shapes:
        yield Row(str(shape), seed, CUT, accuracy_of(recovering.parts.plain(shape), recipe, recovering.parts.data))
        with fixed(task, task.threads):
            bundle, _ = recovering.learn(shape, f"recover {shape}")
        yield Row(str(shape), seed, RECOVERED, accuracy_of(bundle, recipe, recovering.parts.data))
    shutil.rmtree(folder)


def section(name: str, rows: Sequence[Row], texts: int, share: float) -> str:
    """Means over seeds, and their differences to the shape distilled alone, as Markdown."""
    seeds = sorted({row.seed for row in rows})
    passes = (
        "the board's passes" if share == 1 else f"{share:.0%} of the board's passes in each training, the teacher's too"
    )
    command = "make bench-elastic" if share == 1 else f"make bench-elastic SHARE={share:g}"
    lines = [
        f"# Elastic parts beside the same shapes alone: {name}",
        "",
        f"Written by `{command}` ({passes}): share of {texts} validation texts answered rightly, mean of seeds {', '.join(map(str, seeds))} (least to most).",
        "",
        "| part | alone, % | cut out, % | points | recovered, % | points |",
        "|---|---|---|---|---|---|",
    ]
    for shape in dict.fromkeys(row.shape for row in rows):
        shares = {
            side: [100 * row.accuracy for row in rows if (row.shape, row.side) == (shape, side)]
            for side in (ALONE, CUT, RECOVERED)
        }
        base = _mean(shares[ALONE])
        cells = [_cell(shares[ALONE])]
        for side in (CUT, RECOVERED):
            cells += [_cell(shares[side]), f"{_mean(shares[side]) - base:+.2f}"]
        lines.append(f"| {shape} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _cell(values: Sequence[float]) -> str:
    return f"{_mean(values):.2f} ({min(values):.1f} to {max(values):.1f})"


def main(argv: Sequence[str]) -> int:
    """Do what is left of all seeds and shapes, then write the section."""
    disable_telemetry()
    quiet_libraries()
    from pipelines.data.clean import load_clean

    parser = argparse.ArgumentParser(prog="python -m benchmarks.elastic", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/validation/test.csv (text,label)")
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder to build in; a run that was cut off goes on there, if it was of the same recipe, data and code",
    )
    parser.add_argument("--page", type=Path, required=True, help="the page that the table goes to")
    parser.add_argument("--share", type=float, default=1.0, help="share of the passes of the board's trainings")
    given = parser.parse_args(argv)
    name, before = given.data.resolve().name, load()
    source = with_unlabelled(name, given.data, given.work / "source")
    made, done = given.work / "shared" / "build" / name, given.work / "rows.json"
    board = board_of(name, source, given.share)
    run(name, board.fixed, given.work / "shared", list(SHARED))
    made_of = identity(board.front, list(board.front))
    kept = json.loads(done.read_text()) if done.exists() else {}
    rows = [Row(**row) for row in kept["rows"]] if kept.get("of") == made_of else []
    for seed in SEEDS:
        for make, last in ((rows_elastic, RECOVERED), (rows_alone, ALONE)):
            had = {row.shape for row in rows if (row.seed, row.side) == (seed, last)}
            left = [shape for shape in SHAPES if str(shape) not in had]
            for row in make(name, board, given.work, seed, left) if left else ():
                rows = [old for old in rows if (old.shape, old.seed, old.side) != (row.shape, row.seed, row.side)] + [
                    row
                ]
                done.write_text(json.dumps({"of": made_of, "rows": [asdict(each) for each in rows]}, indent=1))
                print(row, flush=True)
    page = section(name, rows, len(load_clean(made / "data").validation.texts), given.share)
    write_section(given.page, f"elastic {name}", f"{page}\n\n{machine()}; {before} at the start.")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
