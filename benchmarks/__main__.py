"""`make bench DATA="folder ..." OUT=rows.json PEERS="model2vec ..."`: build and measure every system on every data folder in one run.

Writes one JSON row a system and data set, the table and the picture (the Makefile says where).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import front, peers
from benchmarks.pages import machine, write_section
from benchmarks.peers.environments import environment
from benchmarks.peers.errors import PeerError
from pipelines.environment import disable_telemetry, quiet_libraries

if TYPE_CHECKING:
    from benchmarks.systems import System
    from pipelines.data.clean import CleanData

LATENCY_ROUNDS = 2000
THROUGHPUT_SECONDS = 4.0
BOOTSTRAP = 10_000
OUT_OF_SCOPE = "oos"


def measure(
    name: str, source: Path, work: Path, pythons: Mapping[str, Path], budgets: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Build and measure the board of one data folder: its rows, and the lines under its table.

    Among it are the peers whose interpreters are given, and what budgets take from a front where that is asked for.
    """
    from benchmarks.budgets import budget_systems
    from benchmarks.chain import recipe_for
    from benchmarks.peers.board import peer_systems
    from benchmarks.systems import build_systems
    from benchmarks.unlabelled import said_of, with_unlabelled

    source = with_unlabelled(name, source, work / "source")
    data, systems, seconds = build_systems(name, source, work)
    teacher = next(system for system in systems if system.name == front.TEACHER)
    below = said_of(name, source)
    if budgets:
        chosen, explored = budget_systems(name, source, work, seconds, teacher)
        systems += chosen
        below += [str(explored), ""]
    folder = work / "build" / name / "teacher"
    shutil.rmtree(work / "peers", ignore_errors=True)
    with peer_systems(pythons, recipe_for(name, source), data, teacher, folder, work / "peers") as others:
        rows, standings = rows_of(name, data, [*systems, *others])
    return rows, below + front.table(standings)


def rows_of(name: str, data: CleanData, systems: Sequence[System]) -> tuple[list[dict[str, Any]], list[front.Standing]]:
    """One row a system: quality on test (looked at once), bytes, latency, throughput, build seconds; and the standings."""
    from slm_registry.runtime.timing import latencies

    from benchmarks.systems import THREADS
    from pipelines.predictors import predict_all
    from pipelines.techniques.metrics import accuracy, macro_f1, paired_difference

    truth = np.array(data.test.labels)
    answers = {system.name: predict_all(system.predict, data.test.texts, 32).argmax(1) for system in systems}
    times = latencies([system.predict for system in systems], data.test.texts, LATENCY_ROUNDS)
    rows = []
    for system, milliseconds in zip(systems, times, strict=True):
        predicted = answers[system.name]
        quality = accuracy(truth, predicted)
        difference = paired_difference(truth, predicted, answers[front.TEACHER], BOOTSTRAP, seed=0)
        speed, energy = speed_of(system, data.test.texts)
        row = {
            "data": name,
            "system": system.name,
            "accuracy": quality.value,
            "accuracy_low": quality.low,
            "accuracy_high": quality.high,
            "macro_f1": macro_f1(truth, predicted, len(data.labels)),
            "difference": difference.value,
            "difference_low": difference.low,
            "difference_high": difference.high,
            "bytes": system.bytes,
            "p50_ms": float(np.median(milliseconds)),
            "texts_per_s": speed,
            "energy_j_per_1000": energy,
            "build_s": system.build_s,
            "threads": THREADS,
            "test_rows": len(truth),
        }
        rows.append(row | scope(truth, predicted, data.labels))
    right = {name: predicted == truth for name, predicted in answers.items()}
    return rows, front.standings(rows, right, BOOTSTRAP)


def speed_of(system: System, texts: Sequence[str]) -> tuple[float, float | None]:
    """Texts a second at batch 32 and joules a thousand texts; no joules of what runs in a process of its own, which are not measured."""
    from slm_registry.runtime.timing import THROUGHPUT_BATCH, Clocked

    from pipelines.techniques.measuring import throughput

    if not isinstance(system.predict, Clocked):
        return throughput(system.predict, texts, THROUGHPUT_SECONDS)
    done, taken = 0, 0.0
    while taken < THROUGHPUT_SECONDS:
        first = done % len(texts)
        batch = list(texts[first : first + THROUGHPUT_BATCH])
        taken += sum(system.predict.seconds([batch]))
        done += len(batch)
    return done / taken, None


def scope(truth: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, float]:
    """In-scope accuracy and out-of-scope recall, where the data has such a label."""
    if OUT_OF_SCOPE not in labels:
        return {}
    outside = truth == labels.index(OUT_OF_SCOPE)
    right = predicted == truth
    return {"in_scope_accuracy": float(right[~outside].mean()), "out_of_scope_recall": float(right[outside].mean())}


def head(notes: Sequence[str]) -> str:
    """What all tables of the board have in common, as Markdown."""
    lines = [
        "# The board",
        "",
        "Written by `make bench`, one thread while timing, tokenizing included; every system of a data set was built on one machine (a run that was cut off goes on there) and all were measured together, the latencies in turns of some texts.",
        "Settings were picked on validation data; a run looks at test data once, for what it has built. The difference is to the teacher, with the 95 % interval of a paired bootstrap.",
        "MB is everything that a user downloads to run the model. Build seconds include the teacher's fine-tuning where a system is made from it: not of `tfidf`, model2vec and SetFit.",
        "Ours have a bias a class that is fitted on validation, where held-out rows are better for it (`quantize.calibrate`). No rival has them but `teacher-biases`, the teacher with the same: a control that says how much of ours is owed to that, and about what other forms of the teacher would gain.",
        "",
        *notes,
    ]
    return "\n".join(lines)


def table(name: str, rows: Sequence[Mapping[str, Any]], below: Sequence[str]) -> str:
    """The rows of one data set as a table of Markdown, with its lines below."""
    teacher = next(row for row in rows if row["system"] == front.TEACHER)
    wide = "in_scope_accuracy" in teacher
    titles = [
        "system",
        "accuracy %",
        "to the teacher, points",
        "MB",
        "smaller",
        "p50 ms",
        "faster",
        "texts/s",
        "build s",
    ]
    titles += ["in-scope %", "oos recall %"] if wide else []
    lines = [
        f"## {name} ({teacher['test_rows']} test texts)",
        "",
        f"{machine()}.",
        "",
        f"| {' | '.join(titles)} |",
        "|" + "---|" * len(titles),
        *(_line(row, teacher, wide) for row in rows),
        "",
        *below,
    ]
    return "\n".join(lines)


def _line(row: Mapping[str, Any], teacher: Mapping[str, Any], wide: bool) -> str:
    cells = [
        f"`{row['system']}`",
        f"{100 * row['accuracy']:.2f} ({100 * row['accuracy_low']:.1f} to {100 * row['accuracy_high']:.1f})",
        f"{100 * row['difference']:+.2f} ({100 * row['difference_low']:+.2f} to {100 * row['difference_high']:+.2f})",
        f"{row['bytes'] / 1e6:.2f}",
        f"{teacher['bytes'] / row['bytes']:.1f}x",
        f"{row['p50_ms']:.3f}",
        f"{teacher['p50_ms'] / row['p50_ms']:.1f}x",
        f"{row['texts_per_s']:.0f}",
        f"{row['build_s']:.0f}",
    ]
    if wide:
        cells += [f"{100 * row['in_scope_accuracy']:.2f}", f"{100 * row['out_of_scope_recall']:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main(argv: list[str]) -> int:
    """Run the board."""
    disable_telemetry()
    quiet_libraries()
    from benchmarks.peers.board import notes
    from benchmarks.picture import draw

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders with train/validation/test.csv (text,label)"
    )
    parser.add_argument("--out", type=Path, required=True, help="where the JSON rows go")
    parser.add_argument("--table", type=Path, required=True, help="the page that the Markdown table goes to")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder to build in; a run that was cut off goes on there"
    )
    parser.add_argument("--picture", type=Path, required=True, help="where the SVG goes")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=peers.NAMES,
        default=[],
        help="tools to put beside, each installed in an environment of its own",
    )
    parser.add_argument(
        "--budgets", action="store_true", help="explore a front too, and put on the board what budgets take from it"
    )
    options = parser.parse_args(argv)
    for folder in options.data:
        missing = [name for name in ("train.csv", "validation.csv", "test.csv") if not (folder / name).is_file()]
        if missing:
            parser.error(
                f"{folder}: {', '.join(missing)} missing; a data folder holds train.csv, validation.csv and test.csv (text,label)"
            )
    try:
        pythons = {name: environment(name, (options.work / "peers").resolve()) for name in options.peers}
    except PeerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    write_section(options.table, "board", head(notes(options.peers)))
    for folder in options.data:
        name = folder.resolve().name
        found, below = measure(name, folder, options.work / name, pythons, options.budgets)
        print(board := table(name, found, below))
        write_section(options.table, f"board {name}", board)
        draw(keep(name, found, options.out), options.picture)
    return 0


def keep(name: str, found: list[dict[str, Any]], out: Path) -> list[dict[str, Any]]:
    """Put a data set's rows in place of its former ones; all rows that are kept."""
    before = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    rows = [*(row for row in before if row["data"] != name), *found]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
