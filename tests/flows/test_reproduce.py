"""`python -m flows reproduce` where it builds nothing; its two builds are in tests/test_end_to_end.py, beside the third that they are held against."""

from __future__ import annotations

from pathlib import Path

from tests.project import make_project, run


def test_an_unknown_model_is_refused_before_any_build(tmp_path: Path) -> None:
    done = run(make_project(tmp_path / "project"), "flows", "reproduce", "nope", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("RecipeError: ")
    assert "no model 'nope'" in done.stderr
