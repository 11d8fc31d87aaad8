"""A part of dvc.lock is what YAML makes of it, whatever DVC wrote into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.lockfile import text_of_stages

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), max_size=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(bool), inner, max_size=3),
    max_leaves=8,
)
#: A name of more than 120 letters is written in a way of its own.
LONG = f"teach@{'x' * 128}"
NAMES = st.sampled_from(["teach@a", "teach@b", "label@a-2", "label@a", "1", "on", "no@a", "gate", "2024-01-01", LONG])
STAGES = st.dictionaries(NAMES, st.fixed_dictionaries({"cmd": TEXTS, "params": VALUES, "deps": VALUES}), max_size=6)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stages=STAGES, wanted=st.sets(NAMES))
def test_what_is_wanted_and_nothing_else(tmp_path: Path, stages: dict[str, Any], wanted: set[str]) -> None:
    from dvc.utils.serialize import dump_yaml, load_yaml

    path = tmp_path / "dvc.lock"
    dump_yaml(str(path), {"schema": "2.0"} | ({"stages": stages} if stages else {}))
    part = tmp_path / "part.yaml"
    part.write_text(text_of_stages(path, wanted.__contains__), encoding="utf-8")
    held = load_yaml(str(path)).get("stages", {})
    found = load_yaml(str(part)).get("stages", {})
    wanted |= set(held) if LONG in held else set()
    assert found == {name: one for name, one in held.items() if name in wanted}


@pytest.mark.parametrize(
    "text",
    [
        "stages:\n  a@x:\n    cmd: one\nschema: '2.0'\n",
        "schema: '2.0'\nstages:\n  a@x:\n    cmd: one\ndatasets: []\n",
        "schema: '2.0'\nstages: {a@x: {cmd: one}}\n",
        "schema: '1.0'\nstages:\n  a@x:\n    cmd: one\n",
    ],
)
def test_what_is_written_otherwise_comes_whole(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dvc.lock"
    path.write_text(text)
    assert text_of_stages(path, {"b@x"}.__contains__) == text
    assert yaml.safe_load(text)["stages"]
