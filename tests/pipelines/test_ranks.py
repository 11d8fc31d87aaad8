"""Trainings by two real processes over gloo, beside the same by one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from pydantic import BaseModel

from pipelines.__main__ import run
from pipelines.bundle import sha256_of
from pipelines.curves import read_curve
from pipelines.errors import RecipeError
from pipelines.ranks import VARIABLE, Several, together
from tests.flows.toy import REPOSITORY, wait_for
from tests.recipes import BY_BUDGET, LOSSES, recipe
from tests.sequence_recipes import SEQUENCE_TRAINING, by_budget, sequence_recipe, sequence_rows
from tests.tiny import tiny_model, tiny_rows, write_csv
from tests.tiny_generators import tiny_causal

#: What a stage of the chain takes, and where it writes.
ARGUMENTS = {
    "validate": ("source", "clean", "report"),
    "teach": ("clean", "teacher", "curve"),
    "label": ("clean", "teacher", "signals"),
    "distill": ("clean", "signals", "teacher", "student", "curve"),
}


class Project:
    """A folder with one recipe, in which stages are run as dvc.yaml runs them."""

    def __init__(self, folder: Path, block: BaseModel, source: Path) -> None:
        self.folder, self.source = folder, source
        (folder / "params.yaml").write_text(yaml.safe_dump({"models": {"tiny": block.model_dump(mode="json")}}))

    def prepare(self, *stages: str) -> None:
        """Run stages in this process, which is quicker."""
        for stage in stages:
            run(stage, [*self.command(stage, "one")[3:], "--params", str(self.folder / "params.yaml")])

    def command(self, stage: str, out: str) -> list[str]:
        """Outputs of a stage that trains go below a folder of their own."""
        places = {name: self.folder / name for name in ("clean", "report", "signals", "teacher")}
        places |= {
            "source": self.source,
            "curve": self.folder / out / "curve.csv",
            "student": self.folder / out / "student",
        }
        if stage == "teach" and out != "one":
            places["teacher"] = self.folder / out / "teacher"
        options = [word for name in ARGUMENTS[stage] for word in (f"--{name}", str(places[name]))]
        return ["-m", "pipelines", stage, "tiny", *options]

    def run(self, stage: str, out: str = "one", **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a stage that must succeed."""
        done = subprocess.run(
            [sys.executable, *self.command(stage, out)],
            cwd=self.folder,
            env=environment(**extra),
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        assert done.returncode == 0, done.stderr
        return done

    def losses(self, out: str) -> np.ndarray:
        """A curve's training and validation losses, [epochs, 2]."""
        rows = read_curve(self.folder / out / "curve.csv")
        return np.array([[float(row["train_loss"]), float(row["validation_loss"])] for row in rows])


def environment(**extra: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'registry'}", "OMP_NUM_THREADS": "1"} | extra


def without_dropout(body: Path) -> Path:
    """The masks of two processes are not those of one."""
    path = body / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)))
    return body


def classifier(folder: Path, **changes: Any) -> Project:
    body = without_dropout(tiny_model(folder / "body"))
    block = recipe(teach__source=str(body), teach__sha256=sha256_of(body / "model.safetensors"), **changes)
    return Project(folder, block, write_csv(folder / "tiny.csv", tiny_rows()))


def unlabelled(folder: Path) -> Project:
    """Every loss that a classifier has, each a mean over something else: texts, texts with a label, tokens of texts of many lengths."""
    rows = [(" ".join([text] * (1 + at % 4)), label) for at, (text, label) in enumerate(tiny_rows())]
    write_csv(folder / "set" / "rows.csv", rows)
    words = sorted({word for text, _ in tiny_rows() for word in text.split()})
    more = [" ".join(words[at % 7 :: 3 + at % 11]) for at in range(60)]
    (folder / "set" / "more.txt").write_text("\n".join(dict.fromkeys(more)) + "\n")
    changes = {
        "data__unlabelled": "more.txt",
        "data__splits": {"kind": "made", "file": "rows.csv", "validation": 0.2, "test": 0.2},
        "label__relations": True,
        "label__levers": {"cut_mix": 0, "dropped_words": 0, "typos": 0, "written": None},
        "distill__trial": None,
        "distill__losses": LOSSES | {"cross_entropy": 1.0, "hidden_mse": 1.0, "hidden_cosine": 0.5, "relation": 1.0},
    }
    project = classifier(folder, **changes)
    project.source = folder / "set"
    return project


def writer(folder: Path, **changes: Any) -> Project:
    """A causal model; its texts are not of one length, so that shares of a batch weigh differently."""
    body = tiny_causal(folder / "body", "llama")
    ready = {
        "mode": "ready",
        "source": str(body),
        "sha256": sha256_of(body / "model.safetensors"),
        "trust_remote_code": None,
    }
    block = sequence_recipe("text-generation", **({"teach": ready} | changes))
    texts = [" ".join([row["text"]] * (1 + at % 3)) for at, row in enumerate(sequence_rows())]
    (folder / "rows.csv").write_text("\n".join(["text", *texts]) + "\n")
    return Project(folder, block, folder / "rows.csv")


@pytest.mark.parametrize("kind", ["unlabelled", "elastic classifier", "writer", "elastic writer"])
def test_two_learn_as_one(tmp_path: Path, kind: str) -> None:
    """Same curve within 1e-4, one set of files, and a lineage that says how many trained."""
    made = {
        "unlabelled": lambda: unlabelled(tmp_path),
        "elastic classifier": lambda: classifier(tmp_path, **BY_BUDGET),
        "writer": lambda: writer(tmp_path, distill__training=SEQUENCE_TRAINING | {"epochs": 4}),
        "elastic writer": lambda: writer(tmp_path, **by_budget("text-generation")),
    }
    project = made[kind]()
    project.prepare("validate", "teach", "label", "distill")
    done = project.run("distill", "two", **{VARIABLE: "2"})
    one, two = project.losses("one"), project.losses("two")
    assert len(one) >= 3 and len(one) == len(two)
    assert np.abs(one - two).max() <= 1e-4
    assert done.stderr.count("distill: epoch 1:") == 1, "one of them tells it"
    names = [sorted(path.relative_to(tmp_path / out) for path in (tmp_path / out).rglob("*")) for out in ("one", "two")]
    assert names[0] == names[1]
    stages = [
        json.loads((tmp_path / out / "student" / "lineage.json").read_text())["stages"][-1] for out in ("one", "two")
    ]
    assert ("ranks" in stages[0], stages[1]["ranks"]) == (False, 2)


def test_started_by_accelerate(tmp_path: Path) -> None:
    """As on two hosts, each of which starts its own process; the second's files go nowhere."""
    project = classifier(tmp_path)
    project.prepare("validate", "teach")
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    done = subprocess.run(
        [sys.executable, *launch, *project.command("teach", "two")],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert np.abs(project.losses("one") - project.losses("two")).max() <= 1e-4


def test_killed_they_go_on_and_end_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL of the first: the second ends too, and the next two go on where those stood."""
    project = classifier(tmp_path)
    project.prepare("validate")
    often = {VARIABLE: "2", "SLM_FACTORY_CHECKPOINT_SECONDS": "0"}
    project.run("teach", "whole", **often)
    process = subprocess.Popen(
        [sys.executable, *project.command("teach", "resumed")],
        cwd=tmp_path,
        env=environment(**often),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 2:" in line:
            break
    others = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert others
    wait_for(lambda: not any(other.is_running() and other.status() != psutil.STATUS_ZOMBIE for other in others), 10)
    assert "goes on" in project.run("teach", "resumed", **often).stderr
    for name in ("curve.csv", "teacher/model.safetensors", "teacher/lineage.json"):
        assert sha256_of(tmp_path / "whole" / name) == sha256_of(tmp_path / "resumed" / name)


def test_another_recipe_on_another_host_is_refused(tmp_path: Path) -> None:
    """Two processes with another learning rate each."""
    projects = [
        classifier(made(tmp_path / name), teach__training__learning_rate=rate)
        for name, rate in (("a", 1e-3), ("b", 2e-3))
    ]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    running = []
    for rank, project in enumerate(projects):
        project.prepare("validate")
        env = environment(**common, RANK=str(rank), LOCAL_RANK=str(rank))
        running.append(
            subprocess.Popen(
                [sys.executable, *project.command("teach", "two")],
                cwd=project.folder,
                env=env,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [4, 4], said
    assert "began with other weights, texts or settings" in said[0]
    assert not (projects[0].folder / "two" / "teacher").exists()


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def free_port() -> str:
    from flows.server import free_port as port

    return str(port())


def test_a_share_is_every_other_text() -> None:
    """Every text of a batch is one process' alone, also where there are fewer than processes."""
    for size in (0, 1, 5, 8):
        batch = np.arange(size)
        shares = [Several(index, 3).share(batch) for index in range(3)]
        assert sorted(np.concatenate(shares).tolist()) == batch.tolist()


@pytest.mark.parametrize("said", ["0", "two", "-1", ""])
def test_what_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(VARIABLE, said)

    with pytest.raises(RecipeError, match=VARIABLE), together("nothing", []):
        pass
