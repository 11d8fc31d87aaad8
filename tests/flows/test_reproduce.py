"""`python -m flows reproduce`: two real builds of the tiny project."""

from __future__ import annotations

from pathlib import Path

from tests.project import make_project, run


def test_two_builds_of_a_commit_have_the_same_digests(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", prune={"technique": "none"}, distill__training__epochs=1)
    done = run(project, "flows", "reproduce", "tiny")
    lines = done.stdout.splitlines()
    assert lines[-1] == "tiny: two builds from scratch are byte for byte the same"
    assert {line.split()[1] for line in lines if line.startswith("same")} == {
        "config.json",
        "model.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert not (project / "build").exists()


def test_an_unknown_model_is_refused_before_any_build(tmp_path: Path) -> None:
    done = run(make_project(tmp_path / "project"), "flows", "reproduce", "nope", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("RecipeError: ")
    assert "no model 'nope'" in done.stderr
