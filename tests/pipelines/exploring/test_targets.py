"""Times on another machine: reached by a pipe alone, lost half-way, and repeated where they are noisy."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from slm_registry.runtime.machine import Machine, this_machine

from pipelines.config import Target
from pipelines.environment import ROOT
from pipelines.errors import ModelError, RecipeError, TargetError, TransientError
from pipelines.exploring import targets
from pipelines.exploring.targets import Questions, Reached, Times, measure_folders, measure_until_steady, reach, steady
from tests.registry.helpers import make_bundle

TEXTS = Questions(["where is my parcel", "two\nlines: großartig"], None)
FACTORY = ("torch", "transformers", "pipelines", "pydantic", "onnx", "prefect", "dvc")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [make_bundle(tmp_path / f"model {at}", weight=float(at)) for at in (1, 2, 3)]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The home of a user of another machine: there, `slm/bin/python` knows slm_registry, and cannot import the factory."""
    home = tmp_path / "board"
    (home / "slm" / "bin").mkdir(parents=True)
    (home / "tmp").mkdir()
    (home / "sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({FACTORY!r})\n")
    python = home / "slm" / "bin" / "python"
    path = f"{home}:{ROOT / 'registry'}"
    environment = f"PATH=/usr/bin:/bin HOME={home} TMPDIR={home / 'tmp'} PYTHONPATH={path}"
    python.write_text(f'#!/bin/sh\nexec env -i {environment} {sys.executable} "$@"\n')
    python.chmod(0o755)
    return home


def documented() -> Target:
    """The target of docs/target.md, as it stands there."""
    page = (ROOT / "docs" / "target.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    return Target(**yaml.safe_load(block)["explore"]["target"])


def check(found: list[Times], count: int, board: Path | None = None) -> None:
    assert len(found) == count
    for times in found:
        assert 0 < times.p50_low <= times.p50_high
        assert times.p50_ms <= times.p95_ms
        assert times.per_s > 100
        assert 10_000_000 < times.peak_memory_bytes < 1_000_000_000
    assert board is None or list((board / "tmp").iterdir()) == []


def test_this_machine(folders: list[Path]) -> None:
    check(measure_folders(folders[:2], TEXTS, reach(here()), 20), 2)


def here() -> Target:
    return Target(threads=1, command=None, python=None, instructions=[], timeout_seconds=60)


def test_by_ssh_as_the_page_says(
    folders: list[Path], board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for ssh does what it does with its words: joins them and gives them to the user's shell, at home."""
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(
        f'#!/bin/sh\nwhile [ "$1" = -o ]; do shift 2; done\n[ "$1" = pi@board ] || exit 255\nshift\ncd {board}\nexec sh -c "$*"\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(targets, "BATCH", 2)
    # The machine of these tests need not be the page's.
    reached = reach(documented().model_copy(update={"instructions": []}))
    assert reached.machine == this_machine()
    check(measure_folders(folders, TEXTS, reached, 20), 3, board)


def test_by_a_command_without_a_shell(folders: list[Path], board: Path) -> None:
    """As `docker exec -i` runs its words."""
    target = commanded(["env", "-i"], str(board / "slm/bin/python"), 60)
    check(measure_folders(folders[:1], TEXTS, reach(target), 20), 1, board)


def commanded(command: list[str], python: str, timeout_seconds: float) -> Target:
    return Target(threads=1, command=command, python=python, instructions=[], timeout_seconds=timeout_seconds)


def test_the_board_of_these_tests_has_no_factory(board: Path) -> None:
    for name in FACTORY:
        assert os.system(f"{board}/slm/bin/python -c 'import {name}' 2> {board}/said") != 0
    assert os.system(f"{board}/slm/bin/python -c 'import slm_registry'") == 0


#: What the scripted target says it is.
BOARD_MACHINE = Machine("Cortex-A76", "aarch64", 4, ("neon", "dotprod"), "1.31.1")
#: Says what machine it is; or counts its calls, reads what it is sent, and answers `p50_low` to `p50_high` around 1 ms: narrow
#: for calm models, and for the others the narrower the more rounds there are.
BOARD = """
import json, sys, tarfile, time
from pathlib import Path

machine = MACHINE
if "--machine" in sys.argv:
    print(json.dumps({"machine": machine}))
    sys.exit()
calls, rounds = Path(__file__).with_suffix(".calls"), int(sys.argv[sys.argv.index("--rounds") + 1])
with calls.open("a") as file:
    print(rounds, file=file)
number = len(calls.read_text().split())
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    names = list(dict.fromkeys(m.name.split("/")[0] for m in archive if "/" in m.name))

def row(name):
    wide = 0.01 if "calm" in name else HALF_WIDTH
    return dict(folder=name, p50_ms=1.0, p50_low=1 - wide, p50_high=1 + wide, p95_ms=2.0, per_s=9.0, peak_memory_bytes=rounds)

answer = json.dumps({"machine": machine, "folders": [row(name) for name in names]})
"""


def scripted(
    folder: Path, then: str, half_width: str = "0.01", timeout_seconds: float = 30, machine: Machine = BOARD_MACHINE
) -> Reached:
    """A target of one script: a real process that answers as it is told to."""
    script = folder / "board.py"
    board = BOARD.replace("HALF_WIDTH", half_width).replace("MACHINE", repr(asdict(machine)))
    script.write_text(board + textwrap.dedent(then))
    target = commanded([sys.executable, str(script)], "python3", timeout_seconds)
    return Reached(target, BOARD_MACHINE)


def calls(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "board.calls").read_text().split()]


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ("sys.exit('Connection to board closed.')", "exit code 1, and last said: Connection to board closed"),
        ("print(answer[:40], end='', flush=True); import os; os.abort()", "signal 6, and said nothing; .*by hand"),
        ("print('Welcome to board!'); print(answer)", "asked but 'Welcome to board!"),
        ("print(answer[:40])", "did not print what was asked but '{"),
        ("print(answer.replace('p95_ms', 'p99_ms'))", "install this project's slm_registry there"),
        ("print(answer.replace('2.0', 'NaN'))", "did not print what was asked"),
        ("print(answer.replace('0-', '5-'))", "did not print what was asked"),
        ("print('{}')", "did not print what was asked but '{}"),
    ],
)
def test_a_target_that_fails_is_named_with_its_last_words(
    then: str, message: str, folders: list[Path], tmp_path: Path
) -> None:
    target = scripted(tmp_path, then)
    with pytest.raises(TargetError, match=message) as caught:
        measure_folders(folders, TEXTS, target, 20)
    assert str(caught.value).startswith(f"target `{sys.executable} {tmp_path}/board.py python3`: ")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TransientError)
    assert caught.value.measured == []


def test_a_target_that_goes_away_leaves_what_it_told_before(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "BATCH", 1)
    target = scripted(tmp_path, "print(answer) if number < 3 else sys.exit('broken pipe')")
    with pytest.raises(TargetError, match="broken pipe; 2 of 3 models were measured before") as caught:
        measure_folders(folders, TEXTS, target, 20)
    assert [times.p50_ms for times in caught.value.measured] == [1.0, 1.0]


def test_a_target_that_is_silent_is_given_up(folders: list[Path], tmp_path: Path) -> None:
    target = scripted(tmp_path, "print('hm', file=sys.stderr, flush=True); time.sleep(60)", timeout_seconds=0.5)
    with pytest.raises(TargetError, match=r"no answer within 0\.5 s, and last said: hm; .*timeout_seconds"):
        measure_folders(folders, TEXTS, target, 20)


def test_a_target_that_will_not_end_is_killed(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "GRACE_SECONDS", 0.2)
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    with pytest.raises(TargetError, match=r"no answer within 0\.5 s, and said nothing"):
        measure_folders(folders, TEXTS, scripted(tmp_path, stubborn, timeout_seconds=0.5), 20)


def test_a_command_that_is_not_there(folders: list[Path]) -> None:
    target = commanded(["/no/such/ssh", "pi@board"], "python3", 5)
    with pytest.raises(TargetError, match=r"/no/such/ssh cannot be started \(No such file"):
        measure_folders(folders, TEXTS, Reached(target, BOARD_MACHINE), 20)


def test_a_folder_that_is_no_bundle_is_not_sent(folders: list[Path], tmp_path: Path) -> None:
    (folders[1] / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model 2: model\.onnx missing"):
        measure_folders(folders, TEXTS, scripted(tmp_path, "print(answer)"), 20)
    assert not (tmp_path / "board.calls").exists()


def test_what_the_runner_refuses_is_told(folders: list[Path], board: Path) -> None:
    config = json.loads((folders[0] / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (folders[0] / "config.json").write_text(json.dumps(config))
    target = reach(commanded(["env"], str(board / "slm/bin/python"), 60))
    with pytest.raises(TargetError, match=r"exit code 2, and last said: slm-registry: .*0-model_1.config\.json"):
        measure_folders(folders[:1], TEXTS, target, 20)


def made(low: float, p50: float, high: float) -> Times:
    return Times(p50, low, high, p50 * 2, 100.0, 1)


def test_steady_is_within_a_share_of_the_median() -> None:
    times = [made(0.98, 1, 1.01), made(0.95, 1, 1.06), made(9.8, 10, 10.1), made(1, 1, 1)]
    assert steady(times, 0.02) == [True, False, True, True]
    assert steady(times, 0.0) == [False] * 4


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    return [make_bundle(tmp_path / name) for name in ("calm-a", "noisy-b", "calm-c")]


def test_the_noisy_are_repeated_with_twice_the_rounds_until_they_are_steady(
    mixed: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = scripted(tmp_path, "print(answer)", half_width="6 / rounds")
    found = measure_until_steady(mixed, TEXTS, target, 100, 0.02, 6)
    assert calls(tmp_path) == [100, 200, 400]
    # The stand-in tells the rounds as bytes: only the noisy one was measured again.
    assert [times.peak_memory_bytes for times in found] == [100, 400, 100]
    assert steady(found, 0.02) == [True, True, True]
    assert "too busy" not in capsys.readouterr().err


def test_what_stays_noisy_is_named_and_its_best_attempt_kept(
    mixed: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = scripted(tmp_path, "print(answer)", half_width="0.1 if rounds == 200 else 0.2")
    found = measure_until_steady(mixed, TEXTS, target, 100, 0.02, 3)
    assert calls(tmp_path) == [100, 200, 400]
    assert [times.peak_memory_bytes for times in found] == [100, 200, 100]
    assert steady(found, 0.02) == [True, False, True]
    said = capsys.readouterr().err
    assert "1 of 3 medians are not within 2.0% after 3 attempts" in said
    assert "noisy-b 0.900 to 1.100 ms" in said


def test_a_target_that_goes_away_during_a_repeat_leaves_the_times_of_all(
    mixed: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = scripted(tmp_path, "print(answer) if number < 2 else sys.exit('gone')", half_width="0.2")
    found = measure_until_steady(mixed, TEXTS, target, 100, 0.02, 3)
    assert steady(found, 0.02) == [True, False, True]
    assert "last said: gone" in (told := capsys.readouterr().err)
    assert "the times of the attempts before count" in told and "1 of 3 medians are not within 2.0%" in told


def test_a_target_that_does_not_answer_is_known_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"`false python3`: its command ended with exit code 1"):
        reach(commanded(["false"], "python3", 5))
    with pytest.raises(TargetError, match="did not print what was asked but 'python3 -m slm_registry measure"):
        reach(commanded(["echo"], "python3", 5))


def test_a_machine_says_what_it_is(tmp_path: Path) -> None:
    target = scripted(tmp_path, "").target
    assert reach(target) == Reached(target, BOARD_MACHINE)
    assert reach(here()) == Reached(here(), this_machine())


def test_a_machine_of_another_kind_is_refused(tmp_path: Path) -> None:
    target = scripted(tmp_path, "").target
    assert reach(target.model_copy(update={"instructions": ["dotprod", "neon"]})).machine == BOARD_MACHINE
    with pytest.raises(
        RecipeError,
        match=r"board\.py python3` is not known to have i8mm, sve: it is Cortex-A76, 4 cores, instructions neon dotprod",
    ):
        reach(target.model_copy(update={"instructions": ["neon", "i8mm", "sve"]}))
    silent = scripted(tmp_path, "", machine=replace(BOARD_MACHINE, instructions=None)).target
    assert reach(silent).machine.instructions is None
    with pytest.raises(
        RecipeError, match=r"not known to have neon: it is Cortex-A76, 4 cores, instructions unknown, .*leave them out"
    ):
        reach(silent.model_copy(update={"instructions": ["neon"]}))


def test_times_of_two_machines_are_not_ranked(
    mixed: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads to one machine now and to another later."""
    monkeypatch.setattr(targets, "BATCH", 1)
    moved = """answer = answer.replace('"cores": 4', '"cores": 2') if number == 2 else answer\n"""
    reached = scripted(tmp_path, f"{moved}print(answer)")
    with pytest.raises(
        TargetError,
        match=r"another machine answered, Cortex-A76, 2 cores.* at first, Cortex-A76, 4 cores.*; 1 of 3 models",
    ):
        measure_folders(mixed, TEXTS, reached, 20)


def test_one_attempt_repeats_nothing(mixed: list[Path], tmp_path: Path) -> None:
    measure_until_steady(mixed, TEXTS, scripted(tmp_path, "print(answer)", half_width="0.2"), 100, 0.02, 1)
    assert calls(tmp_path) == [100]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": None}, "give both, or null for both"),
        ({"python": None}, "give both, or null for both"),
        ({"python": "my env/bin/python"}, "should match pattern"),
        ({"python": "python3; reboot"}, "should match pattern"),
        ({"command": []}, "at least 1 item"),
        ({"threads": 0}, "greater than or equal to 1"),
        ({"timeout_seconds": 0}, "greater than 0"),
        ({"instructions": ["avx512-vnni"]}, "'avx512-vnni' is not among avx2, .*avx512_vnni"),
    ],
)
def test_a_target_that_cannot_be_meant(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Target(**(documented().model_dump() | change))
