"""params.yaml, dvc.yaml, the stages' signatures, the schema and the documents held against each other."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import config
from pipelines.__main__ import options_of, sections_of, stage_function
from pipelines.documentation import pages
from pipelines.environment import ROOT
from pipelines.exploring.yardsticks import YARDSTICKS
from pipelines.stages import STAGES, Output, Resumable
from tests.conftest import LONG_FILES

GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
OURS = [*sorted((ROOT / "pipelines").rglob("*.py")), *sorted((ROOT / "flows").rglob("*.py"))]


def paths(entries: list[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def options(stage: str) -> dict[str, str]:
    words = shlex.split(GRAPH[stage]["do"]["cmd"])
    assert words[:5] == ["python", "-m", "pipelines", stage, "${key}"]
    return dict(zip([word.removeprefix("--") for word in words[5::2]], words[6::2], strict=True))


def test_the_graph_holds_the_stages_in_order() -> None:
    assert tuple(GRAPH) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_fits_the_signature(stage: str) -> None:
    assert set(options(stage)) == set(options_of(stage_function(stage)))


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_read_is_a_dependency_and_what_is_written_an_output(stage: str) -> None:
    block, given = GRAPH[stage]["do"], options(stage)
    outs = paths([*block.get("outs", []), *block.get("metrics", []), *block.get("plots", [])])
    for name, annotation in options_of(stage_function(stage)).items():
        declared = outs if annotation in (Output, Resumable) else block["deps"]
        inside = [path for path in declared if path == given[name] or path.startswith(f"{given[name]}/")]
        assert inside, f"{stage}: --{name} {given[name]} is not among {declared}"


@pytest.mark.parametrize("stage", STAGES)
def test_the_sections_read_are_the_params_watched(stage: str) -> None:
    watched = [entry.removeprefix("models.${key}.") for entry in GRAPH[stage]["do"]["params"]]
    assert watched == sections_of(stage_function(stage))


#: What stages import that decides no result by itself: forms, names and errors.
EVERYWHERE = {
    "bundle",
    "config",
    "curves",
    "data",
    "errors",
    "fanning",
    "reproducible",
    "sources",
    "stages",
    "environment",
    "locking",
    "progress",
}


#: Rooms that stand among the dependencies whole; what they import is not followed.
WHOLE = {"families", "reporting"}
#: What a stage reaches through a module that it shares with a later one, and does not call.
NOT_CALLED = {("teach", "token_signals")}


def imported(path: Path) -> set[Path]:
    """The modules of pipelines/ that a module imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pipelines":
            base = ROOT / str(node.module).replace(".", "/")
            places = [[base / f"{name.name}.py", base.with_suffix(".py"), base / "__init__.py"] for name in node.names]
            found |= {next(place for place in each if place.exists()) for each in places}
    return found


def code_of(stage: str) -> set[str]:
    """The modules of pipelines/ that decide what a stage makes: all that it imports, directly or not."""
    found, left = set(), {ROOT / "pipelines" / "stages" / f"{stage}.py"}
    while left:
        path = left.pop()
        found.add(path)
        room = path.relative_to(ROOT / "pipelines").parts[0].removesuffix(".py")
        left |= {
            other
            for other in (set() if room in WHOLE else imported(path)) - found
            if (name := other.relative_to(ROOT / "pipelines").parts[0].removesuffix(".py")) not in EVERYWHERE
            and (stage, name) not in NOT_CALLED
        }
    return {str(path.relative_to(ROOT)) for path in found if "reporting" not in path.parts}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_own_code_is_a_dependency(stage: str) -> None:
    """Every module that decides what a stage makes stands among its dependencies, or the room that it is in."""
    deps = set(GRAPH[stage]["do"]["deps"])
    missing = {path for path in code_of(stage) if not deps & {path, *map(str, Path(path).parents)}}
    assert missing == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_short(stage: str) -> None:
    assert len(inspect.getsource(stage_function(stage)).splitlines()) <= 40


def knobs() -> set[str]:
    sections = [
        value for value in vars(config).values() if inspect.isclass(value) and issubclass(value, config.Section)
    ]
    return {name for section in sections for name in section.model_fields} - {
        "kind",
        "technique",
        "mode",
    }  # read by isinstance


def _is_own(node: ast.Attribute) -> bool:
    """A property of a section hands its value on under another name."""
    return isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr.endswith("_column")


def test_no_knob_is_dead() -> None:
    """Every field of the schema is read as an attribute somewhere outside the schema."""
    read = {
        node.attr
        for path in OURS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and (ROOT / "pipelines" / "config" not in path.parents or _is_own(node))
    }
    outside = "".join(p.read_text(encoding="utf-8") for p in OURS if ROOT / "pipelines" / "config" not in p.parents)
    by_loop = {
        name
        for section in (config.Budget, config.Checks, config.Levers, config.ShapePruning)
        for name in section.model_fields
        if f'"{name}"' in outside
    }
    by_loop |= {name for yardstick in YARDSTICKS.values() for name in (yardstick.bound, yardstick.rate_bound)}
    sections = set(config.SECTIONS) | {"models"}  # handed to the stages by name
    assert knobs() - read - by_loop - sections == set()


def test_no_default_hides_in_the_schema() -> None:
    sections = [
        value for value in vars(config).values() if inspect.isclass(value) and issubclass(value, config.Section)
    ]
    assert len(sections) > 20
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.is_required(), f"{section.__name__}.{name}"
            assert field.description, f"{section.__name__}.{name}"


def test_techniques_never_ask_for_the_family() -> None:
    for path in OURS:
        if "families" not in path.parts:
            source = path.read_text(encoding="utf-8")
            assert not re.search(r"model_type|family ==|isinstance\([^)]*Encoder", source), path.name


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("pipelines.config", "torch transformers prefect dvc boto3 flows"),
        ("pipelines.stages.distill", "prefect dvc boto3 flows great_expectations"),
        ("pipelines.stages.evaluate", "prefect dvc boto3 flows"),
        # Each of these is a process of its own for every build: torch would double what it takes to start.
        ("flows.build", "torch transformers onnxruntime pandas"),
        ("flows.fanout", "torch transformers prefect"),
        ("flows.standing", "torch prefect pandas"),
        ("pipelines.__main__", "torch transformers"),
        ("pipelines.stages.gate", "torch transformers"),
        ("slm_registry.cli", "torch transformers prefect dvc pydantic pipelines flows"),
    ],
)
def test_imports_run_one_way(module: str, banned: str) -> None:
    program = f"import {module}, sys; print(' '.join(name for name in {banned.split()!r} if name in sys.modules))"
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'registry'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == ""


def test_the_test_files_that_begin_first_are_there() -> None:
    assert [name for name in LONG_FILES if not (ROOT / "tests" / name).is_file()] == []


def test_telemetry_is_switched_off_in_one_place() -> None:
    names = {line.split("=")[0] for line in (ROOT / "telemetry.env").read_text().splitlines()}
    assert "DVC_NO_ANALYTICS" in names
    for path in OURS:
        if path.name != "environment.py":
            assert not names & set(re.findall(r"[A-Z_]{8,}", path.read_text(encoding="utf-8"))), path.name


@pytest.mark.parametrize("path", sorted(pages()), ids=lambda path: path.name)
def test_generated_documents_are_fresh(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run `make docs`"


def test_the_lock_holds_exact_pins_and_no_address() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert len(lines) > 200
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line) for line in lines)
