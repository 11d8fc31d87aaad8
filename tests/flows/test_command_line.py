"""`python -m flows build`, as a user runs it: output, exit codes, signals, two builds at once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import boto3
import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStartTime
from prefect.client.schemas.sorting import FlowRunSort
from slm_registry import Registry
from slm_registry.errors import UnreachableError

from flows import temporary
from flows.graph import make_plan
from flows.receipt import FOLDER
from tests.flows.toy import STAGES, Toy, environment, wait_for

RESULT = """\
                                             teacher        published model
accuracy, % (95 % interval)      90.00 (88.00-92.00)    90.00 (88.00-92.00)   -0.40 points
macro-F1, %                                    89.00                  89.00
size, MB                                       90.00                   5.00   18.0x smaller
p50, ms at batch 1                             12.00                   0.80   15.0x faster
texts a second                                    50                     50
report     build/alpha/evaluation/report.html
published  alpha 1.0.0 as candidate in store
next:
  slm-registry predict alpha@candidate --store store 'where is my parcel?'
  dvc repro gate@alpha
"""


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The virtual environment is activated."""
    import sys

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def napping(toy: Toy) -> psutil.Process | None:
    """The sleeping process at the end of a stage's chain."""
    return next((one for one in toy.processes() if "nap of" in " ".join(one.cmdline())), None)


@pytest.mark.usefixtures("on_path")
def test_from_nothing_with_a_server_of_its_own(toy: Toy, tmp_path: Path) -> None:
    """No Prefect server anywhere: one is started, says nothing, keeps its runs in the project, and is gone at the end."""
    api = os.environ.pop("PREFECT_API_URL", None)
    home = os.environ.pop("PREFECT_HOME")
    try:
        code, output = toy.flows("build", "alpha", "--publish", "store")
    finally:
        os.environ["PREFECT_HOME"] = home
        if api:
            os.environ["PREFECT_API_URL"] = api
    assert code == 0, output
    assert not Toy(toy.folder / ".prefect").processes(), "the server is gone when the command is"
    assert RESULT in output
    assert "PREFECT_HOME=.prefect prefect server start" in output
    assert "temporary server" not in output
    assert "View at" not in output
    assert (toy.folder / ".prefect" / "prefect.db").exists()
    with sqlite3.connect(toy.folder / ".prefect" / "prefect.db") as database:
        assert database.execute("select name, state_type from flow_run").fetchall() == [("build · alpha", "COMPLETED")]
    lines = [line for line in output.splitlines() if "teach · alpha" in line]
    assert any(line.endswith("teach · alpha  > python tool.py teach alpha build/alpha/teacher") for line in lines)


def test_plan_needs_no_server_and_runs_nothing(built: Toy) -> None:
    built.change("alpha", "gate", "max_bytes", 5)
    code, output = built.flows("build", "alpha", "--plan", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert code == 0
    assert output.splitlines() == [
        *(f"{step.node.name}: up to date" for step in make_plan(built.folder, "alpha").steps if not step.stale),
        "gate@alpha: parameter changed: models.alpha.gate.max_bytes (8000000 -> 5)",
    ]
    assert built.ran() == []


def test_a_server_that_a_profile_names_is_the_one(built: Toy, api: str, tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(f'active = "team"\n[profiles.team]\nPREFECT_API_URL = "{api}"\n')
    env = {key: value for key, value in environment().items() if key != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "flows", "build", "alpha", "--update", "--publish", "store"]
    env["PREFECT_HOME"] = str(tmp_path)
    subprocess.run(command, cwd=built.folder, env=env, check=True, capture_output=True)
    with get_client(sync_client=True) as client:
        begun = FlowRunFilter(start_time=FlowRunFilterStartTime(is_null_=False))
        newest = client.read_flow_runs(flow_run_filter=begun, sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
    assert newest.state and newest.state.message == "alpha 1.0.0 in store as candidate", "it was told"
    assert built.processes() == [], "one of its own has gone"


@pytest.mark.usefixtures("on_path")
def test_where_nothing_is_to_be_done_no_flow_is_begun(built: Toy, api: str) -> None:
    """What is asked for stands already: a second or two, and neither a server nor the registry hears more than a question."""
    nobody = "http://127.0.0.1:9/api"
    assert built.flows("build", "alpha", PREFECT_API_URL=nobody)[0] == 0, "built, and nothing was asked for but that"
    code, output = built.flows("build", "alpha", "--publish", "store", PREFECT_API_URL=api)
    assert (code, "published  alpha 1.0.0" in output) == (0, True), output
    code, output = built.flows("build", "alpha", "--publish", "store", PREFECT_API_URL=nobody)
    assert code == 0, output
    assert output.splitlines()[0] == f"alpha: all {len(STAGES)} stages are up to date"
    assert RESULT.replace("published  alpha", "unchanged  alpha") in output
    assert "Up to date" in (built.folder / FOLDER / "alpha.prom").read_text()
    assert built.ran() == []


@pytest.mark.usefixtures("api")
def test_logs_for_machines_name_model_stage_and_run(built: Toy) -> None:
    """One of Prefect's settings turns each line into JSON; who speaks stands in fields of its own."""
    built.change("alpha", "gate", "max_bytes", 5)
    code, output = built.flows("build", "alpha", PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER="json")
    assert code == 0, output
    records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    spoke = next(one for one in records if "> python tool.py gate alpha" in one["msg"] + str(one["args"]))
    assert (spoke["model"], spoke["stage"], spoke["levelname"]) == ("alpha", "gate", "INFO")
    assert spoke["flow_run_name"] == "build · alpha"
    assert spoke["task_run_name"] == "gate · alpha"
    assert len({one["flow_run_id"] for one in records if "flow_run_id" in one}) == 1


@pytest.mark.usefixtures("api")
def test_a_failed_stage_ends_in_one_line_and_its_exit_code(built: Toy) -> None:
    line = "GateError: accuracy 0.90 misses 0.95 by 0.05"
    built.behave("gate", f"fail {line}")
    built.change("alpha", "gate", "max_bytes", 5)
    found, output = built.flows("build", "alpha", "--publish", "store")
    assert (found, output.splitlines()[-1]) == (5, line)
    assert "task_engine.py" not in output, "no traceback of Prefect's"
    assert not (built.folder / "store").exists()


def test_a_server_that_is_gone_is_one_line(toy: Toy) -> None:
    """As `make down` leaves it, to a terminal that still names it."""
    code, output = toy.flows("build", "alpha", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (code, output.count("\n")) == (7, 1), output
    assert output.startswith("TransientError: Failed to reach API at http://127.0.0.1:9/api")
    assert "`unset PREFECT_API_URL`" in output and toy.ran() == []


@pytest.mark.usefixtures("api")
def test_a_mistake_is_one_line(built: Toy) -> None:
    code, output = built.flows("build", "gamma")
    assert code == 2, output
    line = f"RecipeError: {built.folder}/params.yaml: no model 'gamma' under `models`; there are: alpha, beta"
    assert output.splitlines()[-1].startswith(line)
    assert "Traceback" not in output


@pytest.mark.parametrize("wrong", [("--publish", "ftp://x"), ("--publish", "store", "--alias", "Bad Alias")])
@pytest.mark.usefixtures("api")
def test_a_wrong_destination_is_told_before_any_work(built: Toy, wrong: tuple[str, ...]) -> None:
    built.change("alpha", "gate", "max_bytes", 5)
    built.ran()
    code, output = built.flows("build", "alpha", *wrong)
    assert (code, built.ran()) == (2, []), output
    # Prefect's queue of events may still report on a busy machine.
    lines = [line for line in output.splitlines() if "Still processing items" not in line]
    assert lines[-1].startswith("UsageError: ")
    assert "Traceback" not in output


def test_outside_a_project(tmp_path: Path) -> None:
    code, output = Toy(tmp_path).flows("build", "alpha")
    assert (code, output.count("\n")) == (2, 1)
    assert "no .dvc folder" in output


@pytest.mark.usefixtures("api", "aws")
def test_into_a_bucket_and_without_credentials(built: Toy, s3_server: str) -> None:
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="flow-models")
    url = f"s3://flow-models/prod?endpoint_url={s3_server}"
    code, output = built.flows("build", "alpha", "--publish", url, "--alias", "staging")
    assert code == 0, output
    assert [row.aliases for row in Registry(url).list("alpha")] == [("staging",)]

    without = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    code, output = built.flows("build", "alpha", "--publish", url, "--alias", "production", **without)
    assert code == UnreachableError.exit_code, output
    assert "credentials" in output.splitlines()[-1]
    assert "Traceback" not in output
    assert [row.aliases for row in Registry(url).list("alpha")] == [("staging",)]


@pytest.mark.usefixtures("api")
def test_a_store_that_cannot_be_written(built: Toy) -> None:
    (built.folder / "store").write_text("a file where the store should be")
    code, output = built.flows("build", "alpha", "--publish", "store")
    assert code == UnreachableError.exit_code, output
    assert "store" in output.splitlines()[-1]
    assert "Traceback" not in output
    assert not make_plan(built.folder, "alpha").stale, "what was built stays built"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("api")
def test_interrupted_in_the_middle_of_a_stage(built: Toy, number: signal.Signals, code: int) -> None:
    built.behave("gate", "sleep 60")
    built.change("alpha", "gate", "max_bytes", 5)
    process = built.start("build", "alpha")
    wait_for(lambda: napping(built))
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == code, output
    assert built.processes() == []
    if number == signal.SIGINT:
        assert (
            output.splitlines()[-1]
            == "interrupted; what is finished stays finished, run the same command again for the rest"
        )


def test_sigkill_leaves_neither_stage_nor_server(built: Toy) -> None:
    built.behave("gate", "sleep 60")
    built.change("alpha", "gate", "max_bytes", 5)
    process = built.start("build", "alpha", PREFECT_API_URL="")
    wait_for(lambda: napping(built), 60)
    family = psutil.Process(process.pid).children(recursive=True)
    assert any(temporary.__file__ in one.cmdline() for one in family)
    assert any("flows.repro" in one.cmdline() for one in family)
    process.kill()
    process.communicate()
    wait_for(lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE], 12)


@pytest.mark.usefixtures("api")
def test_two_models_at_once(toy: Toy) -> None:
    both = [toy.start("build", model, "--publish", "store") for model in ("alpha", "beta")]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(outputs)
    assert sorted(toy.ran("alpha")) == sorted(toy.ran("beta")) == sorted(STAGES)
    recorded = yaml.safe_load((toy.folder / "dvc.lock").read_text())["stages"]
    assert set(recorded) == {f"{stage}@{model}" for stage in STAGES for model in ("alpha", "beta")}
    assert not make_plan(toy.folder).stale


def test_help_names_every_option(tmp_path: Path) -> None:
    code, output = Toy(tmp_path).flows("build", "--help")
    assert code == 0
    assert all(option in output for option in ("name", "--publish", "--alias", "--plan"))
