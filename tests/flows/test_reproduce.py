"""`python -m flows reproduce`: two builds of what is committed, in folders of their own, and what is said of their bytes.

That real stages give the same bytes again is held in tests/test_end_to_end.py, where a published version is built anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.errors import StageFailed
from flows.reproduce import reproduce
from pipelines.bundle import sha256_of
from pipelines.errors import RecipeError
from tests.flows.toy import Toy, run
from tests.project import make_project
from tests.project import run as run_project

GRAPH = """\
stages:
  quantize:
    foreach: ${models}
    do:
      cmd: python quantize.py build/${key}/exported
      deps:
        - quantize.py
        - data/${key}.csv
      outs:
        - build/${key}/exported
"""
SAME = """\
import pathlib, sys
out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True)
for name in ("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"):
    (out / name).write_text(f"{name} " + pathlib.Path("data/alpha.csv").read_text())
"""
OTHER = (
    SAME
    + """\
import uuid
(out / "model.onnx").write_text(str(uuid.uuid4()))
"""
)


def commit(toy: Toy, script: str) -> None:
    (toy.folder / "dvc.yaml").write_text(GRAPH)
    (toy.folder / "quantize.py").write_text(script)
    run(["git", "add", "."], toy.folder)
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "one stage"], toy.folder)


def test_two_builds_with_the_same_bytes(toy: Toy, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    commit(toy, SAME)
    (toy.folder / "data" / "alpha.csv").write_text("not committed")
    assert reproduce(toy.folder, "alpha") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "alpha: two builds from scratch are byte for byte the same"
    digests = {line.split()[1]: line.split()[2] for line in lines if line.startswith("same ")}
    (tmp_path / "expected").write_text("config.json text,label\nalpha,x\n")
    assert digests["config.json"] == sha256_of(tmp_path / "expected"), "of what is committed"
    assert digests.keys() == {"model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert not (toy.folder / "build").exists()


def test_a_file_that_differs_is_named_with_both_digests(toy: Toy, capfd: pytest.CaptureFixture[str]) -> None:
    commit(toy, OTHER)
    assert reproduce(toy.folder, "alpha") == 1
    lines = capfd.readouterr().out.splitlines()
    (differs,) = (line.split() for line in lines if line.startswith("DIFFER"))
    assert differs[1] == "model.onnx" and len({differs[2], differs[4]}) == 2
    assert sum(line.startswith("same ") for line in lines) == 3
    assert lines[-1] == "alpha: two builds from scratch are NOT the same"


def test_a_build_that_fails_names_its_stage(toy: Toy) -> None:
    commit(toy, "raise SystemExit(3)")
    with pytest.raises(StageFailed, match="quantize@alpha: StageFailed: the build from scratch failed"):
        reproduce(toy.folder, "alpha")


def test_without_a_commit_there_is_nothing_to_build_from(tmp_path: Path) -> None:
    run(["git", "init", "-q", "."], tmp_path)
    with pytest.raises(RecipeError, match="no commit to build from; commit first"):
        reproduce(tmp_path, "alpha")


def test_an_unknown_model_is_refused_before_any_build(tmp_path: Path) -> None:
    done = run_project(make_project(tmp_path / "project"), "flows", "reproduce", "nope", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("RecipeError: ")
    assert "no model 'nope'" in done.stderr
