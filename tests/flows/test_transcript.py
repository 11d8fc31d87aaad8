"""What a stage printed decides what the build says and whether it tries again."""

from __future__ import annotations

import pytest

from flows.errors import BadInput, FlowError, GateFailed, Locked, StageError, StageFailed, Transient, stage_error_kinds
from flows.transcript import Transcript

ENDING = "ERROR: failed to reproduce 'gate@a': failed to run: python -m pipelines gate a --out b, exited with 5"


def error_of(*lines: str, code: int = 255) -> StageError:
    transcript = Transcript("gate@a")
    for line in lines:
        transcript.read(line)
    return transcript.error(code)


@pytest.mark.parametrize(
    ("kind", "expected", "exit_code"),
    [
        ("RecipeError", BadInput, 2),
        ("DataError", BadInput, 3),
        ("ModelError", BadInput, 4),
        ("GateError", GateFailed, 5),
        ("ResourceError", StageFailed, 6),
        ("TransientError", Transient, 7),
    ],
)
def test_each_kind_of_error(kind: str, expected: type[StageError], exit_code: int) -> None:
    error = error_of("Running stage 'gate@a':", "> cmd", f"{kind}: size 9: too large", ENDING)
    assert type(error) is expected
    assert (error.stage, error.kind, error.message, error.exit_code) == ("gate@a", kind, "size 9: too large", exit_code)
    assert str(error) == f"gate@a: {kind}: size 9: too large"


def test_every_kind_that_a_stage_can_print_is_known() -> None:
    assert {"RecipeError", "DataError", "ModelError", "GateError", "ResourceError", "TransientError"} <= set(
        stage_error_kinds()
    )


def test_only_what_may_pass_is_transient() -> None:
    transient = {kind for kind in stage_error_kinds() if isinstance(error_of(f"{kind}: x", ENDING), Transient)}
    assert transient == {"TransientError", "TargetError"}


def test_a_message_of_several_lines_is_whole_and_ends_where_dvc_speaks() -> None:
    error = error_of("RecipeError: a: wrong", "b: missing", "c: unknown key", ENDING, "afterthought")
    assert error.message == "a: wrong\nb: missing\nc: unknown key"


def test_the_last_error_counts() -> None:
    assert error_of("DataError: first", "ERROR: other", "GateError: second", ENDING).message == "second"


def test_an_unforeseen_error_is_its_last_line() -> None:
    error = error_of("Traceback (most recent call last):", '  File "x.py"', "ValueError: boom", ENDING)
    assert type(error) is StageFailed
    assert (error.message, error.exit_code) == ("ValueError: boom", 1)


def test_a_kill_from_outside_says_so() -> None:
    error = error_of("epoch 3", "ERROR: failed to reproduce 'gate@a': failed to run: cmd, exited with -9")
    assert (error.kind, error.exit_code) == ("ResourceError", 6)
    assert "signal 9" in error.message


def test_silence() -> None:
    assert error_of(code=4).message == "exited with 4 and said nothing"


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: Unable to acquire lock. Most likely another DVC process is running or was terminated abruptly.",
        "ERROR: failed to reproduce 'gate@a': 'build/a/x' is busy, it is being blocked by:",
    ],
)
def test_locks_may_pass(line: str) -> None:
    error = error_of(line)
    assert isinstance(error, Locked)
    assert error.exit_code == 7


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("Stage 'gate@a' didn't change, skipping", "up to date"),
        ("'data/x.csv.dvc' didn't change, skipping", "up to date"),
        ("Stage 'gate@a' is cached - skipping run, checking out outputs", "restored"),
        ("Running stage 'gate@a':", "built"),
    ],
)
def test_outcome(line: str, outcome: str) -> None:
    transcript = Transcript("gate@a")
    assert transcript.read(line)
    assert transcript.outcome == outcome


def test_where_dvc_itself_failed_its_word_counts_and_not_the_stages_last() -> None:
    error = error_of("epoch 15: loss 0.2", "ERROR: unexpected error - [Errno 28] No space left on device: 'cache/1'")
    assert (error.kind, error.exit_code) == ("ResourceError", 6)
    assert error.message == "unexpected error - [Errno 28] No space left on device: 'cache/1'"
    error = error_of("epoch 15: loss 0.2", "ERROR: failed to reproduce 'gate@a': output 'b' does not exist")
    assert (error.kind, error.message) == ("StageFailed", "output 'b' does not exist")


def test_dvcs_advice_is_not_shown() -> None:
    transcript = Transcript("gate@a")
    shown = [
        transcript.read(line)
        for line in ("To track the changes with git, run:", "\tgit add dvc.lock", "epoch 1: loss 0.3")
    ]
    assert shown == [False, False, True]


def test_errors_survive_a_pickle() -> None:
    import pickle

    for error in (error_of("GateError: x", ENDING), error_of("ERROR: Unable to acquire lock.")):
        again = pickle.loads(pickle.dumps(error))
        assert isinstance(again, FlowError)
        assert (type(again), str(again), again.exit_code) == (type(error), str(error), error.exit_code)
