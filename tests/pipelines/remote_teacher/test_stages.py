"""From an endpoint to a student: the stages on a tiny project, `teach` killed while it asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.bundle import ANSWERS, REMOTE, digest_of, model_files, read_json, read_lineage
from pipelines.config import ApiTeacher, TextToTextTask
from pipelines.data.clean import load_clean
from pipelines.environment import ROOT
from pipelines.errors import FactoryError
from pipelines.families import load_bundle
from pipelines.techniques.course import Unkept
from tests.openai_server import KEY, OpenAIServer, openai_server
from tests.pipelines.remote_teacher.conftest import PROMPT, settings
from tests.project import write_params
from tests.sequence_recipes import sequence_recipe_dict, write_rows

PLACES: dict[str, dict[str, str]] = {
    "validate": {"source": "data/tiny.csv", "clean": "build/data", "report": "build/validation"},
    "teach": {"clean": "build/data", "teacher": "build/teacher", "curve": "build/curves/teach.csv"},
    "label": {"clean": "build/data", "teacher": "build/teacher", "signals": "build/signals"},
    "distill": {
        "clean": "build/data",
        "signals": "build/signals",
        "teacher": "build/teacher",
        "student": "build/student",
        "curve": "build/curves/distill.csv",
    },
}
STUDENT = {"kind": "random", "sizes": {"num_layers": 1, "num_decoder_layers": 1}}


def make(folder: Path, url: str, **changes: Any) -> Path:
    """A folder with rows, prompt and the recipe `tiny`, whose teacher is at `url`."""
    write_rows(folder / "data" / "tiny.csv")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "back.txt").write_text(PROMPT, encoding="utf-8")
    teach = settings(url=url, parallel=4, **changes)
    write_params(folder, sequence_recipe_dict("text-to-text", teach=teach, distill__student=STUDENT))
    return folder


def command(stage: str) -> list[str]:
    options = [word for name, place in PLACES[stage].items() for word in (f"--{name}", place)]
    return [sys.executable, "-m", "pipelines", stage, "tiny", *options]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'registry'}", "TEACHER_KEY": KEY}


def finish(project: Path, stage: str) -> str:
    """Run a stage to its end; what it said."""
    done = subprocess.run(
        command(stage), cwd=project, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def kill_while_asking(project: Path, web: OpenAIServer, answered: int) -> str:
    """Start `teach`, and kill it after so many answers; what it said."""
    child = subprocess.Popen(
        command("teach"), cwd=project, env=environment(), stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True
    )
    while sum(web.answered.values()) < answered:
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    said, _ = child.communicate(timeout=60)
    return said


@dataclass(frozen=True)
class Built:
    """The project after `distill`, the requests at the kill and at the end, and what all stages said."""

    project: Path
    killed_after: Counter[str]
    asked: Counter[str]
    said: str

    def __getitem__(self, name: str) -> Path:
        return self.project / "build" / name


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    def slow(text: str) -> str:
        time.sleep(0.05)
        return "ok"

    with openai_server() as web:
        project = make(tmp_path_factory.mktemp("built"), web.url)
        said = finish(project, "validate")
        web.behaviour = slow
        said += kill_while_asking(project, web, 10)
        time.sleep(0.2)  # what the endpoint has yet to notice
        assert not (project / "build" / "teacher").exists()
        killed_after = web.asked.copy()
        said += "".join(finish(project, stage) for stage in ("teach", "label", "distill"))
        yield Built(project, killed_after, web.asked.copy(), said)


def test_the_same_command_goes_on_after_a_kill(built: Built) -> None:
    rows = len(load_clean(built["data"]).train.texts)
    assert 10 <= sum(built.killed_after.values()) < rows == len(built.asked)
    assert sum(built.asked.values()) <= rows + 4, "at most the four requests under way are asked again"
    assert not list((built.project / "build").glob("*.partial"))


def test_the_learner_takes_in_the_answers(built: Built) -> None:
    """The endpoint answers in capitals, which no row of the data holds."""
    task = TextToTextTask(type="text-to-text", seed=5, max_length=24, threads=1, max_target_length=12)
    learner, data = load_bundle(built["teacher"], task), load_clean(built["data"])
    stored = read_json(built["teacher"] / ANSWERS)
    assert sorted(stored.values()) == sorted([text.upper()] for text in data.train.texts)
    for text in ("ANNA", *data.train.texts, *data.train.targets):
        assert learner.tokenizer.unk_token_id not in learner.tokenizer(text)["input_ids"], text


def test_what_was_asked_is_no_part_of_the_model(built: Built) -> None:
    teacher = built["teacher"]
    assert {ANSWERS, REMOTE} <= {path.name for path in teacher.iterdir()}
    assert not {ANSWERS, REMOTE} & {path.name for path in model_files(teacher)}
    before, kept = digest_of(teacher), (teacher / ANSWERS).read_bytes()
    try:
        (teacher / ANSWERS).write_text("{}", encoding="utf-8")
        assert digest_of(teacher) == before
    finally:
        (teacher / ANSWERS).write_bytes(kept)


def test_answers_stay_with_the_learner(built: Built) -> None:
    found = [path.relative_to(built.project) for path in built.project.rglob("*") if path.name in (ANSWERS, REMOTE)]
    assert sorted(map(str, found)) == [f"build/teacher/{ANSWERS}", f"build/teacher/{REMOTE}"]


def test_the_lineage_names_the_apis_model(built: Built) -> None:
    for folder in ("teacher", "student"):
        lineage = read_lineage(built[folder])
        assert lineage["teacher"] == {"source": "answers of big-1", "learner": "fresh t5"}
        assert lineage["stages"][0]["params"]["model"] == "big-1"
    assert read_json(built["teacher"] / REMOTE)["model"] == "big-1"


def test_no_key_is_written_or_said(built: Built) -> None:
    files = [path for path in built.project.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {ANSWERS, REMOTE, "lineage.json", "model.safetensors", "teach.csv", "distill.csv"} <= names
    assert any(path.suffix == ".jsonl" for path in files), "the store"
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert "answers to ask for" in built.said and KEY not in built.said


def test_a_learner_that_cannot_be_built_costs_nothing(
    web: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: Built
) -> None:
    from pipelines.stages.teach import teach

    project = make(tmp_path, web.url, learner={"architecture": "t55"})
    monkeypatch.chdir(project)
    section = ApiTeacher.model_validate(settings(url=web.url, learner={"architecture": "t55"}))
    task = TextToTextTask(type="text-to-text", seed=5, max_length=24, threads=1, max_target_length=12)
    with pytest.raises(FactoryError, match="has no architecture 't55'"):
        teach(built["data"], project / "teacher", project / "curve.csv", task, section, Unkept())
    assert not web.asked
