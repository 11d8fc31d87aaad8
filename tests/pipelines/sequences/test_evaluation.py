"""The whole evaluation on tiny random models: shape, arithmetic, and the documents made of it."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipelines.stages.evaluate as stage
from pipelines.bundle import read_json
from pipelines.config import MetricGate, Task
from pipelines.curves import COLUMNS
from pipelines.data.clean import load_clean, write_clean
from pipelines.data.rows import SPLITS, Row
from pipelines.environment import ROOT
from pipelines.errors import GateError
from pipelines.sequences.evaluation import SequenceEvaluation, evaluate_sequences
from pipelines.sequences.main_metric import MAIN
from pipelines.sequences.quality import agreement
from pipelines.sequences.sides.predicting import Predictions
from pipelines.stages.gate import gate
from tests.made_once import MadeOnce
from tests.sequence_bundles import SETTINGS, TASKS, clean_of


@pytest.fixture(scope="module", params=list(TASKS))
def sides(request: pytest.FixtureRequest, made_once: MadeOnce) -> tuple[str, dict[str, Path]]:
    return request.param, made_once.sides(TASKS[request.param])


@pytest.fixture(scope="module")
def evaluated(
    sides: tuple[str, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SequenceEvaluation]:
    """The stage run on real folders: the folder of its outputs, and what it measured."""
    task, folder = TASKS[sides[0]], tmp_path_factory.mktemp("evaluation")
    prepare(folder, task)
    made: list[SequenceEvaluation] = []

    def keep(*arguments: Any) -> SequenceEvaluation:
        made.append(evaluate_sequences(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "evaluate_sequences", keep)
        stage.evaluate(
            folder / "clean",
            **sides[1],
            front=folder / "front",
            curves=folder / "curves",
            bundle=folder / "bundle",
            evaluation=folder / "evaluation",
            task=task,
            evaluate=SETTINGS,
        )
    (measured,) = made
    return folder, measured


def prepare(folder: Path, task: Task) -> None:
    """A clean set and the curves of the stages before."""
    data = clean_of(task)
    second = data.test.targets or [None] * len(data.test.texts)
    rows = [
        Row(split, "a.csv", line, text, answer)
        for split in SPLITS
        for line, (text, answer) in enumerate(zip(data.test.texts, second, strict=True))
    ]
    write_clean(folder / "clean", rows, [], tiny_data(task.type))
    assert load_clean(folder / "clean").test == data.test
    (folder / "curves").mkdir()
    for name in ("teach", "distill", "prune"):
        lines = [",".join(COLUMNS), *(f"{name},{epoch},2.0,{2.0 / epoch},0.5" for epoch in (1, 2, 3))]
        (folder / "curves" / f"{name}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def measured(evaluated: tuple[Path, SequenceEvaluation]) -> SequenceEvaluation:
    return evaluated[1]


@pytest.fixture(scope="module")
def outputs(sides: tuple[str, dict[str, Path]], evaluated: tuple[Path, SequenceEvaluation]) -> tuple[str, Path]:
    return sides[0], evaluated[0]


def test_the_shape_is_the_classifiers_with_the_students_beside(measured: SequenceEvaluation) -> None:
    metrics = measured.metrics()
    assert set(metrics) == {"teacher", "control", "student", "model", "comparison", "run"}
    main = MAIN[measured.ground.task.type].key
    assert metrics["run"]["main_metric"] == main
    for side in ("teacher", "control", "student", "model"):
        assert math.isfinite(metrics[side][main])
    for side in ("teacher", "model"):
        assert metrics[side]["bytes"] > 1000
        assert metrics[side]["peak_memory_bytes"] > 10_000_000
        energy = "energy_j_per_token" if MAIN[measured.ground.task.type].writes else "energy_j_per_1000"
        assert 0 < metrics[side][energy] < 1e5
    json.dumps(metrics, allow_nan=False)


def test_the_float_export_is_as_good_as_the_student_it_comes_from(measured: SequenceEvaluation) -> None:
    metrics = measured.metrics()
    main = MAIN[measured.ground.task.type].key
    assert metrics["model"][main] == pytest.approx(metrics["student"][main], rel=1e-3)
    assert metrics["model"]["agreement"] == pytest.approx(metrics["student"]["agreement"])
    assert metrics["model"]["agreement_rows"] == 1.0
    assert "agreement" not in metrics["teacher"]


def test_differences_are_those_of_the_sides(measured: SequenceEvaluation) -> None:
    metrics = measured.metrics()
    comparison, main = metrics["comparison"], MAIN[measured.ground.task.type].key
    for prefix, ours, theirs in (("", "model", "teacher"), ("control_", "student", "control")):
        name = f"{prefix}{main}_difference"
        assert comparison[name] == pytest.approx(metrics[ours][main] - metrics[theirs][main])
        assert comparison[f"{name}_low"] <= comparison[name] <= comparison[f"{name}_high"]
    assert comparison["size_ratio"] == pytest.approx(metrics["teacher"]["bytes"] / metrics["model"]["bytes"])


def test_the_main_metric_is_all_that_was_predicted(measured: SequenceEvaluation) -> None:
    """Against sums made by hand from the raw predictions and the raw texts."""
    metrics, task, test = measured.metrics(), measured.ground.task, measured.ground.test
    found = measured.sides["teacher"].found
    if task.type == "text-generation":
        size = sum(len(text.encode()) + 1 for text in test.texts)
        assert metrics["teacher"]["bits_per_byte"] == pytest.approx(found.nats.sum() / math.log(2) / size)
        assert metrics["run"]["rows_cut"] == 0
    elif task.type == "text-to-text":
        rows = [row for row, length in enumerate(found.lengths) if length < 12]
        size = sum(len(test.targets[row].encode()) + 1 for row in rows)
        nats = sum(found.by_row(found.nats)[row].sum() for row in rows)
        assert metrics["teacher"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)
        assert metrics["run"]["rows_cut"] == len(test.texts) - len(rows) > 0
    else:
        told = found.named(found.likeliest)
        truth = [target.split() for target in test.targets]
        right = sum(a == b for row, true in zip(told, truth, strict=True) for a, b in zip(row, true, strict=True))
        assert metrics["teacher"]["accuracy"] == pytest.approx(right / sum(map(len, truth)))
        assert set(metrics["teacher"]["span_types"]) >= {"THING", "DAY"}


def test_words_that_a_tagger_never_read_are_in_no_span(measured: SequenceEvaluation) -> None:
    from pipelines.sequences.quality import quality_of

    if MAIN[measured.ground.task.type].writes:
        return
    side = measured.sides["teacher"]
    keep = [length - (row == 0) for row, length in enumerate(side.found.lengths)]
    gone = int(side.found.lengths[0]) - 1
    cut = {name: np.delete(getattr(side.found, name), gone) for name in ("nats", "truth", "likeliest", "confidence")}
    found = quality_of(measured.ground, replace(side.found, **cut, lengths=keep), side.written)
    assert found.counts[0][2] == 2  # the true spans are all still asked for


def named(truth: list[str], likeliest: list[str], lengths: list[int]) -> Predictions:
    names = sorted({*truth, *likeliest})
    places = [np.array([names.index(one) for one in row], np.int64) for row in (truth, likeliest)]
    blank = np.zeros(len(truth))
    return Predictions(blank, places[0], places[1], blank, lengths, names)


def test_agreement_is_by_name_over_rows_cut_into_the_same_tokens() -> None:
    teacher = named(["a", "b", "c", "d"], ["a", "x", "c", "d"], [2, 2])
    same = named(["a", "b", "c", "d"], ["a", "x", "y", "d"], [2, 2])
    assert agreement(teacher, same) == {"agreement": 0.75, "agreement_rows": 1.0}
    other = named(["a", "b", "cd"], ["z", "x", "cd"], [2, 1])
    assert agreement(teacher, other) == {"agreement": 0.5, "agreement_rows": 0.5}
    assert agreement(teacher, named(["ab", "cd"], ["ab", "cd"], [1, 1])) == {}


def tiny_data(task: str) -> Any:
    """Only its class says how the clean set is written."""
    from pipelines.config import TaggedData, TargetData, TextData

    kinds = {"text-generation": TextData, "text-to-text": TargetData, "token-classification": TaggedData}
    return kinds[task].model_construct(unlabelled=None)


def test_the_stage_leaves_metrics_plots_report_and_a_whole_bundle(
    outputs: tuple[str, Path], sides: tuple[str, dict[str, Path]]
) -> None:
    task, folder = outputs
    metrics = read_json(folder / "evaluation" / "metrics.json")
    assert read_json(folder / "bundle" / "metrics.json") == metrics
    assert read_json(folder / "bundle" / "lineage.json")["stages"][-1]["stage"] == "evaluate"
    assert all((folder / "bundle" / path.name).exists() for path in sides[1]["exported"].iterdir())
    with (folder / "evaluation" / "confusion.csv").open() as file:
        assert next(csv.reader(file)) == ["actual", "predicted"]
        assert (len(list(file)) > 0) == (task == "token-classification")
    with (folder / "evaluation" / "reliability.csv").open() as file:
        assert len(list(csv.DictReader(file))) > 0


def test_the_report_stands_alone_and_shows_what_was_written(outputs: tuple[str, Path]) -> None:
    task, folder = outputs
    html = (folder / "evaluation" / "report.html").read_text()
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"http", html)
    assert html.count("<svg") >= 6
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert "Worst rows" in headings
    assert "Best rows" in headings
    assert ("Every type of span" in headings) == (task == "token-classification")
    assert "student alone" in html
    assert "student distilled" in html


def test_the_card_is_one_that_the_hub_reads_and_its_snippet_runs(outputs: tuple[str, Path]) -> None:
    from huggingface_hub import ModelCard

    task, folder = outputs
    card = ModelCard.load(folder / "bundle" / "README.md")
    head = card.data.to_dict()
    tags = {"text-to-text": "text2text-generation"}
    assert head["pipeline_tag"] == tags.get(task, task)
    assert head["model-index"][0]["results"][0]["metrics"][0]["type"] == MAIN[task].key
    assert "base_model" not in head  # the tiny teacher is of fresh weights
    table = [line for line in card.text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    snippet = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert snippet is not None
    exec(snippet[1].replace("this-folder", str(folder / "bundle")), {})


def test_a_gate_can_be_set_on_any_of_it(outputs: tuple[str, Path], tmp_path: Path) -> None:
    task, folder = outputs
    main = MAIN[task].key
    bounds = [
        {"metric": f"model.{main}", "at_most": 1e6, "at_least": 0},
        {"metric": "model.bytes", "at_most": 1e9, "at_least": None},
        {"metric": f"comparison.control_{main}_difference_low", "at_most": None, "at_least": -1e6},
    ]
    if task == "token-classification":
        bounds.append({"metric": "model.span_types.THING.f1", "at_most": 1, "at_least": None})
    gate(folder / "evaluation", tmp_path / "gate.json", None, MetricGate.model_validate({"bounds": bounds}))
    assert len(read_json(tmp_path / "gate.json")["bounds"]) == len(bounds) + 1
    tight = MetricGate.model_validate({"bounds": [{"metric": "model.bytes", "at_most": 10, "at_least": None}]})
    with pytest.raises(GateError, match=r"model\.bytes is .*, must be at most 10"):
        gate(folder / "evaluation", tmp_path / "second.json", None, tight)


def test_the_measured_process_is_as_light_as_a_users(outputs: tuple[str, Path]) -> None:
    """What answers on the exported side imports nothing of the factory's heavy libraries."""
    program = (
        "import pathlib, sys; from pipelines.config import task_of; from pipelines.sequences.clients import *;"
        "answer = answering(pathlib.Path(sys.argv[1]), 1, load=exported_writer, task=task_of(eval(sys.argv[2])), new_tokens=3);"
        "answer(['my parcel today']);"
        "print(' '.join(name for name in ('torch', 'transformers', 'sklearn', 'pandas', 'nltk') if name in sys.modules))"
    )
    task, folder = TASKS[outputs[0]], outputs[1] / "bundle"
    command = [sys.executable, "-c", program, str(folder), repr(task.model_dump())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
