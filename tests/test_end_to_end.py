"""The whole chain on a tiny recipe, through the real `dvc repro`: from a CSV file to a gated bundle, and again from its commit to the same bytes."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from slm_registry import Registry
from slm_registry.runtime.text_classification import TextClassifier

from pipelines.bundle import sha256_of
from pipelines.data.clean import load_clean
from pipelines.drift import read_reference
from tests.project import make_project, run
from tests.recipes import recipe_dict

SAME = ("model.onnx", "tokenizer.json", "config.json")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("built") / "project")
    run(project, "dvc", "repro", "-q")
    return project


def bundle(project: Path) -> Path:
    return project / "build" / "tiny" / "bundle"


def test_the_bundle_is_complete_and_predicts(built: Path, tmp_path: Path) -> None:
    names = {path.name for path in bundle(built).iterdir()}
    assert names == {*SAME, "tokenizer_config.json", "README.md", "metrics.json", "lineage.json", "reference.json"}
    registry = Registry(str(tmp_path / "store"), cache=tmp_path / "cache")
    registry.publish(
        bundle(built), "tiny", lineage=json.loads((bundle(built) / "lineage.json").read_text()), alias="candidate"
    )
    answers = registry.load("tiny@candidate").predict(["where is my parcel please", "reset the password thanks"])
    assert [answer.label for answer in answers] == ["parcel", "login"]
    assert all(0 < answer.probability <= 1 for answer in answers)


def test_the_bundle_holds_what_it_was_measured_on(built: Path) -> None:
    """As a server that runs it would log the test rows: the watch for drift holds one against the other."""
    texts = load_clean(built / "build" / "tiny" / "data").test.texts
    model = TextClassifier.from_folder(bundle(built))
    answers, found = model.predict(texts), read_reference(bundle(built))
    assert found.labels == Counter(answer.label for answer in answers)
    ratios = [count / len(text.split()) for count, text in zip(model.pieces(texts), texts, strict=True)]
    expected = {
        "length": [len(text) for text in texts],
        "pieces_per_word": ratios,
        "probability": [answer.probability for answer in answers],
    }
    for key, values in expected.items():
        assert found.numbers[key].tolist() == pytest.approx(sorted(values), abs=1e-3)


def test_a_published_version_is_built_again_from_its_commit(built: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    run(built, "flows", "build", "tiny", "--publish", store, "--commit", "HEAD")
    lines = run(built, "flows", "verify", "tiny", "--registry", store).stdout.splitlines()
    commit = Registry(store).show("tiny@1.0.0").lineage["git"]["commit"]
    assert lines[-1] == f"tiny 1.0.0 from {commit[:12]}: 4 files, byte for byte"
    found = {line.split()[1]: line.split()[2] for line in lines if line.startswith("same ")}
    assert found == {name: sha256_of(bundle(built) / name) for name in (*SAME, "tokenizer_config.json")}


def test_nothing_changed_nothing_runs(built: Path) -> None:
    done = run(built, "dvc", "repro")
    assert done.stdout.count("didn't change, skipping") == 9


def test_only_what_follows_a_change_runs(built: Path) -> None:
    before = (built / "params.yaml").read_text()
    try:
        params = yaml.safe_load(before)
        params["models"]["tiny"]["quantize"] = {"technique": "none", "parity": 1e-4, "calibrate": "biases"}
        (built / "params.yaml").write_text(yaml.safe_dump(params))
        status = json.loads(run(built, "dvc", "status", "--json").stdout)
        assert set(status) == {"quantize@tiny"}
        assert "quantize" in run(built, "dvc", "params", "diff", "--targets", "params.yaml").stdout
    finally:
        (built / "params.yaml").write_text(before)


def test_metrics_and_plots_are_dvcs(built: Path) -> None:
    shown = json.loads(run(built, "dvc", "metrics", "show", "--json").stdout)
    metrics = shown[""]["data"]["build/tiny/evaluation/metrics.json"]["data"]
    assert set(metrics) == {"teacher", "model", "comparison", "run"}
    assert metrics["model"]["bytes"] == sum(
        (bundle(built) / name).stat().st_size for name in (*SAME, "tokenizer_config.json")
    )
    assert metrics["comparison"]["size_ratio"] == pytest.approx(metrics["teacher"]["bytes"] / metrics["model"]["bytes"])
    html = run(built, "dvc", "plots", "show", "-o", "plots").stdout
    assert "index.html" in html
    page = (built / "plots" / "index.html").read_text(encoding="utf-8")
    for name in ("curves_teach", "curves_distill", "curves_prune", "evaluation_confusion", "evaluation_reliability"):
        assert f"build_tiny_{name}_csv" in page


def test_the_report_needs_no_network(built: Path) -> None:
    html = (built / "build" / "tiny" / "evaluation" / "report.html").read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#][^"']*)""", html)
    assert [link for link in links if not link.startswith("data:")] == []
    assert html.count("<svg") >= 6
    for heading in (
        "Measurements",
        "Training",
        "Mistakes it was surest of",
        "What it confuses",
        "Every class",
        "How it was made",
    ):
        assert heading in html


def test_the_card_has_the_hubs_head_and_the_numbers(built: Path) -> None:
    card = (bundle(built) / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    metrics = json.loads((bundle(built) / "metrics.json").read_text())
    assert head["pipeline_tag"] == "text-classification"
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(
        metrics["model"]["accuracy"], abs=1e-4
    )
    assert f"| {metrics['teacher']['bytes']} | {metrics['model']['bytes']} |" in card


def test_no_path_of_the_machine_is_in_what_is_published(built: Path) -> None:
    for path in bundle(built).iterdir():
        assert str(built).encode() not in path.read_bytes(), path.name


def test_a_failing_gate_keeps_the_measurements_and_makes_no_verdict(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(built, project, symlinks=True)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["models"]["tiny"]["gate"]["max_bytes"] = 10
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    done = run(project, "dvc", "repro", check=False)
    assert done.returncode != 0
    assert re.search(
        r"GateError: the model misses its gate, nothing is published: max_bytes is \d+.*must be at most 10", done.stderr
    )
    assert "Traceback" not in done.stderr
    assert (project / "build" / "tiny" / "evaluation" / "metrics.json").exists()
    assert not (project / "build" / "tiny" / "gate.json").exists()


def test_a_corrupt_signal_file_is_found_and_made_again(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(built, project, symlinks=True)
    target = project / "build" / "tiny" / "signals" / "logits.npy"
    good = target.read_bytes()
    target.chmod(0o644)
    target.write_bytes(good[:-4] + b"evil")
    run(project, "dvc", "repro", "-q", "distill@tiny")
    assert target.read_bytes() == good


def test_the_recipe_is_checked_before_any_work(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    block = recipe_dict(task__max_length=3)
    (project / "params.yaml").write_text(yaml.safe_dump({"models": {"tiny": block}}))
    done = run(project, "dvc", "repro", check=False)
    assert "RecipeError: params.yaml: models.tiny.task.max_length: 3" in done.stderr
    assert not (project / "build").exists() or not list((project / "build").rglob("*.parquet"))


def test_the_report_says_what_more_text_was_worth(built: Path) -> None:
    html = (built / "build" / "tiny" / "evaluation" / "report.html").read_text(encoding="utf-8")
    lineage = json.loads((bundle(built) / "lineage.json").read_text(encoding="utf-8"))
    (gain,) = next(entry["levers"] for entry in lineage["stages"] if entry["stage"] == "distill")
    assert gain["lever"] == "cut_mix" and gain["texts"] > 20
    assert re.search(
        rf"<td>cut mix</td><td class=\"n\">{gain['texts']}</td>.*<td>{'yes' if gain['used'] else 'no'}</td>", html
    )
