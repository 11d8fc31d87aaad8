"""A chain that goes on where it was cut off, on a small graph of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import chain
from benchmarks.chain import begin_beside, run

#: A stage appends a line to the log of what ran, and writes what it is given to its out; `bad` text fails.
WRITE = """python -c "
import pathlib, yaml
text = yaml.safe_load(open('params.yaml'))['models']['${key}']['%(block)s']
assert text != 'bad'
open('log', 'a').write('%(stage)s ')
out = pathlib.Path('build/${key}/%(out)s')
out.mkdir(parents=True)
(out / 'text').write_text(text)
" """
OUTS = {"validate": "data", "teach": "teacher", "label": "signals", "distill": "student"}
RECIPE: dict[str, Any] = {"data": {"source": "anywhere"}, "teach": "a teacher", "distill": "a student", "label": "some"}


@pytest.fixture(autouse=True)
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "root"
    (root / "pipelines").mkdir(parents=True)
    (root / "pipelines" / "code.py").write_text("a = 1")
    stages = {
        stage: {
            "do": {
                "cmd": WRITE % {"block": block, "stage": stage, "out": out},
                "params": [f"models.${{key}}.{block}"],
                "outs": [f"build/${{key}}/{out}"],
            }
        }
        for (stage, out), block in zip(OUTS.items(), ("teach", "teach", "label", "distill"), strict=True)
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    monkeypatch.setattr(chain, "ROOT", root)
    return root


def test_a_second_run_does_nothing_and_says_what_the_first_took(tmp_path: Path) -> None:
    first = run("m", RECIPE, tmp_path / "w", list(OUTS))
    assert run("m", RECIPE, tmp_path / "w", list(OUTS)) == first
    assert (tmp_path / "w" / "log").read_text() == "validate teach label distill "
    assert min(first.values()) > 0


def test_a_run_that_failed_goes_on_after_the_last_good_stage(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run("m", RECIPE | {"label": "bad"}, tmp_path / "w", list(OUTS))
    assert (tmp_path / "w" / "log").read_text() == "validate teach "
    with pytest.raises(subprocess.CalledProcessError):
        run("m", RECIPE | {"label": "bad"}, tmp_path / "w", list(OUTS))
    assert (tmp_path / "w" / "log").read_text() == "validate teach "


def test_another_recipe_other_code_and_a_lost_out_run_again_and_so_does_all_after_them(
    tmp_path: Path, graph: Path
) -> None:
    work = tmp_path / "w"
    run("m", RECIPE, work, list(OUTS))
    (work / "log").unlink()
    run("m", RECIPE | {"distill": "another"}, work, ["distill"])
    assert (work / "log").read_text() == "distill "
    assert (work / "build" / "m" / "student" / "text").read_text() == "another"
    (work / "build" / "m" / "signals" / "text").unlink()
    (work / "build" / "m" / "signals").rmdir()
    run("m", RECIPE | {"distill": "another"}, work, ["label", "distill"])
    assert (work / "log").read_text() == "distill label distill "
    (graph / "pipelines" / "code.py").write_text("a = 2")
    run("m", RECIPE | {"distill": "another"}, work, ["distill"])
    assert (work / "log").read_text() == "distill label distill distill "


def test_only_what_a_change_reaches_runs_again_whenever_it_is_asked_for(tmp_path: Path) -> None:
    work = tmp_path / "w"
    run("m", RECIPE, work, list(OUTS))
    (work / "log").unlink()
    run("m", RECIPE | {"label": "other"}, work, ["label"])
    assert (work / "log").read_text() == "label "
    run("m", RECIPE | {"label": "other"}, work, ["validate", "teach"])
    assert (work / "log").read_text() == "label "
    run("m", RECIPE | {"label": "other"}, work, ["distill"])
    assert (work / "log").read_text() == "label distill "


def test_a_shape_beside_another_stands_until_its_teacher_is_another(tmp_path: Path) -> None:
    work, beside = tmp_path / "w", tmp_path / "w" / "beside"
    run("m", RECIPE, work, list(OUTS))
    made = begin_beside("m", work, beside)
    run("m", RECIPE, beside, ["distill"])
    assert (made / "teacher" / "text").read_text() == "a teacher"
    assert begin_beside("m", work, beside) == made
    assert (made / "student" / "text").read_text() == "a student"
    run("m", RECIPE | {"teach": "another teacher"}, work, list(OUTS))
    begin_beside("m", work, beside)
    assert (made / "teacher" / "text").read_text() == "another teacher"
    assert not (made / "student").exists()
