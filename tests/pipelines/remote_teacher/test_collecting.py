"""Collecting answers from an endpoint that misbehaves. The requests that it saw prove what was asked once."""

from __future__ import annotations

import json
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.clean import Split
from pipelines.errors import FactoryError, ModelError, RecipeError, TransientError
from pipelines.remote_teacher import answers, ask_teacher
from tests.openai_server import KEY, PREFIX, OpenAIServer, openai_server
from tests.pipelines.remote_teacher.conftest import FastClock, teacher

ROWS = Split(["alpha", "beta", "gamma"], targets=["x", "y", "z"])


def ask(web: OpenAIServer, root: Path, split: Split = ROWS, clock: FastClock | None = None, **changes: Any) -> Any:
    return ask_teacher(teacher(web, **changes), split, root, root / "out", clock or FastClock())


def stored(root: Path, kind: str = "answer") -> list[dict[str, Any]]:
    (path,) = (root / "answers").glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_answers_become_targets_and_are_asked_for_once(web: OpenAIServer, root: Path) -> None:
    record = ask(web, root)
    assert answers(root / "out", ROWS) == Split(ROWS.texts, targets=["ALPHA", "BETA", "GAMMA"])
    first = (root / "out" / "answers.json").read_bytes(), (root / "out" / "remote.json").read_bytes()
    assert ask(web, root) == record
    assert ((root / "out" / "answers.json").read_bytes(), (root / "out" / "remote.json").read_bytes()) == first
    assert web.asked == {"alpha": 1, "beta": 1, "gamma": 1}
    assert (record["input_tokens"], record["output_tokens"]) == (30, 15)
    assert record["cost"] == pytest.approx((30 * 1 + 15 * 2) / 1e6)
    assert record["served"] == {"big-1": 3} and record["flaws"] == {} and record["estimated_counts"] == 0


def test_what_is_sent(web: OpenAIServer, root: Path) -> None:
    ask(web, root, Split(["a {text} b"], targets=["x"]))
    ask(web, root, Split(["alpha"], targets=["x"]), endpoint="completions")
    sampling = {"model": "big-1", "temperature": 0.7, "top_p": 0.9, "max_tokens": 50, "stream": False}
    assert web.bodies == [
        sampling | {"messages": [{"role": "user", "content": f"{PREFIX}a {{text}} b"}]},
        sampling | {"prompt": f"{PREFIX}alpha"},
    ]


def test_for_text_generation_the_answers_are_the_texts(web: OpenAIServer, root: Path) -> None:
    ask(web, root, Split(["alpha", "beta"]), endpoint="completions")
    assert answers(root / "out", Split(["alpha", "beta"])) == Split(["ALPHA", "BETA"])


def test_several_answers_a_row_and_more_of_them_later(web: OpenAIServer, root: Path) -> None:
    ask(web, root, sampling={"answers": 2})
    assert web.asked["alpha"] == 2
    ask(web, root, sampling={"answers": 3})
    assert web.asked == {"alpha": 3, "beta": 3, "gamma": 3}
    made = answers(root / "out", ROWS)
    assert made.texts == ["alpha"] * 3 + ["beta"] * 3 + ["gamma"] * 3 and len(made.targets) == 9


def test_only_new_rows_are_asked_for_and_equal_ones_once(web: OpenAIServer, root: Path) -> None:
    ask(web, root)
    ask(web, root, Split(["delta", "alpha", "delta"], targets=["u", "v", "w"]))
    assert web.asked == {"alpha": 1, "beta": 1, "gamma": 1, "delta": 1}
    made = answers(root / "out", Split(["delta", "alpha", "delta"], targets=["u", "v", "w"]))
    assert made == Split(["delta", "alpha"], targets=["DELTA", "ALPHA"])


def test_another_host_serves_the_same_answers(web: OpenAIServer, root: Path) -> None:
    ask(web, root)
    with openai_server() as other:
        ask(other, root)
        assert not other.asked


@pytest.mark.parametrize("change", [{"sampling": {"temperature": 0.0}}, {"sampling": {"max_tokens": 51}}])
def test_other_sampling_is_another_teacher(web: OpenAIServer, root: Path, change: dict[str, Any]) -> None:
    ask(web, root)
    ask(web, root, **change)
    assert web.asked["alpha"] == 2 and len(list((root / "answers").glob("*.jsonl"))) == 2


@pytest.mark.parametrize(
    ("trouble", "charged"),
    [
        ("429", False),
        ("500", False),
        ("502", False),
        ("503", False),
        ("504", False),
        ("cut", True),
        ("garbage", True),
        ("odd", True),
        ("reset", True),
        ("surrogate", True),
    ],
)
def test_what_may_pass_is_tried_again(web: OpenAIServer, root: Path, trouble: str, charged: bool) -> None:
    web.script, clock = [trouble, trouble], FastClock()
    record = ask(web, root, clock=clock)
    assert web.asked == {"alpha": 3, "beta": 1, "gamma": 1} and record["answers"] == 3
    first, second = clock.slept
    assert 0.5 <= first <= 1 <= second <= 2, "doubled, with jitter"
    assert len(stored(root, "lost")) == (2 if charged else 0), "what may be charged for is counted"


@pytest.mark.parametrize("trouble", ["hang", "drip"])
def test_a_slow_endpoint_is_timed_out(web: OpenAIServer, root: Path, trouble: str) -> None:
    from pipelines.remote_teacher.patience import Clock

    web.script = [trouble]
    settings = teacher(web, timeout_seconds=1.0, retries={"tries": 2})
    record = ask_teacher(settings, Split(["alpha"], targets=["x"]), root, root / "out", Clock())
    assert record["answers"] == 1 and web.asked["alpha"] == 2 and len(stored(root, "lost")) == 1


def test_retry_after_is_honoured(web: OpenAIServer, root: Path) -> None:
    web.script, clock = ["429 after 7", "503 after 41"], FastClock()
    ask(web, root, clock=clock)
    assert clock.slept[:2] == [7, 41] and web.asked["alpha"] == 3


def test_retry_after_may_be_a_date(web: OpenAIServer, root: Path) -> None:
    import time

    web.script, clock = [f"429 after {formatdate(time.time() + 100, usegmt=True)}"], FastClock()
    ask(web, root, clock=clock)
    assert 90 < clock.slept[0] <= 100


def test_retry_after_beyond_the_recipes_patience_ends_it(web: OpenAIServer, root: Path) -> None:
    web.script, clock = ["ok", "429 after 3600"], FastClock()
    with pytest.raises(TransientError, match=r"left alone for 3600 s; .*retries\.seconds \(600\); 1 of 3 answers"):
        ask(web, root, clock=clock)
    assert clock.slept == [] and sum(web.asked.values()) == 2


def test_tries_are_bounded(web: OpenAIServer, root: Path) -> None:
    web.behaviour = lambda text: "500" if text == "beta" else "ok"
    with pytest.raises(TransientError, match=r"answered 500: 'trouble 500 \*{3}', in the last of 4 tries.*1 of 3"):
        ask(web, root)
    assert web.asked == {"alpha": 1, "beta": 4}


def test_an_endpoint_that_dies_half_way_and_comes_back(root: Path) -> None:
    with openai_server() as web:
        port = int(web.url.rpartition(":")[2].removesuffix("/v1"))
        web.script = ["ok", "ok", "reset", "reset", "reset", "reset"]
        with pytest.raises(TransientError, match=r"2 of 3 answers are stored in .*: the same command goes on"):
            ask(web, root)
    with pytest.raises(TransientError, match=r"cannot be reached \(ConnectError\).*2 of 3 answers are stored"):
        ask(web, root)
    with openai_server(port) as back:
        ask(back, root)
        assert back.asked == {"gamma": 1}
    assert answers(root / "out", ROWS).targets == ["ALPHA", "BETA", "GAMMA"]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("400", r"answered 400 to training row 0: 'trouble 400 \*\*\*'; check teach\.sampling"),
        ("413", r"answered 413 to training row 0"),
        ("403", r"answered 403: it refuses the key in \$TEACHER_KEY; export the right one"),
        ("404", r"answered 404: .*check teach\.url and teach\.endpoint"),
        ("redirect", r"answered 307, a redirect, which is not followed; correct teach\.url"),
    ],
)
def test_what_will_not_pass_fails_at_once(web: OpenAIServer, root: Path, trouble: str, words: str) -> None:
    web.script, clock = [trouble], FastClock()
    with pytest.raises(ModelError, match=words):
        ask(web, root, clock=clock)
    assert sum(web.asked.values()) == 1 and clock.slept == []


def test_a_wrong_key(web: OpenAIServer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-another")
    with pytest.raises(ModelError, match=r"answered 401: it refuses the key in \$TEACHER_KEY") as caught:
        ask(web, root)
    assert "sk-another" not in str(caught.value) and sum(web.asked.values()) == 1


def test_a_wrong_model(web: OpenAIServer, root: Path) -> None:
    with pytest.raises(ModelError, match=r"answered 404: 'no model big-9'; .*teach\.model 'big-9'"):
        ask(web, root, model="big-9")


def test_another_model_than_the_recipe_allows(web: OpenAIServer, root: Path) -> None:
    web.script = ["ok", "other model"]
    with pytest.raises(ModelError, match=r"by model 'small-2', the recipe says teach\.served_as 'big-1'.*1 of 3"):
        ask(web, root, served_as="big-1")
    web.script = ["other model"]
    assert ask(web, root)["served"] == {"big-1": 2, "small-2": 1}, "null: any, and counted"
    with pytest.raises(ModelError, match="small-2"):
        ask(web, root, served_as="big-1")


def test_flawed_answers_are_dropped_and_counted(web: OpenAIServer, root: Path) -> None:
    web.script = ["empty", "length", "ok"]
    record = ask(web, root)
    assert record["flaws"] == {"cut": 1, "empty": 1} and record["rows_without_answer"] == 2
    assert answers(root / "out", ROWS) == Split(["gamma"], targets=["GAMMA"])
    assert ask(web, root, cut="keep")["answers"] == 2
    assert sum(web.asked.values()) == 3, "a flawed answer is stored too"


@pytest.mark.parametrize(("trouble", "flaw"), [("empty", "empty"), ("length", "cut"), ("filtered", "cut")])
def test_a_recipe_may_fail_on_flawed_answers(web: OpenAIServer, root: Path, trouble: str, flaw: str) -> None:
    web.script = ["ok", trouble]
    for _ in range(2):
        with pytest.raises(ModelError, match=rf"teach\.{flaw} is fail, and answer 0 to training row 1 is {flaw}"):
            ask(web, root, empty="fail", cut="fail")
    assert sum(web.asked.values()) == 2, "known from the store the second time"


def test_no_answer_left(web: OpenAIServer, root: Path) -> None:
    web.behaviour = lambda text: "empty"
    with pytest.raises(ModelError, match=r"of 3 answers none is left \(\{'empty': 3\}\)"):
        ask(web, root)


def test_tokens_are_estimated_where_the_endpoint_does_not_count(web: OpenAIServer, root: Path) -> None:
    web.script = ["no usage"]
    record = ask(web, root, Split(["alpha"], targets=["x"]))
    asked, answered = -(-len(f"{PREFIX}alpha") // 3), 2
    assert (record["input_tokens"], record["output_tokens"], record["estimated_counts"]) == (asked, answered, 1)


def test_the_cap_is_checked_before_the_start(web: OpenAIServer, root: Path) -> None:
    # Each: ceil(18 / 3) + 8 = 14 (or 13) tokens in, 50 out.
    with pytest.raises(RecipeError, match=r"max_cost is 0\.0003, but 3 answers are estimated at 0\.000342") as caught:
        ask(web, root, max_cost=0.0003)
    assert not web.asked and "raise it" in str(caught.value)
    ask(web, root, max_cost=0.00035)
    assert ask(web, root, max_cost=0.0)["answers"] == 3, "nothing is missing, so nothing is spent"


def test_the_cap_holds_while_running(web: OpenAIServer, root: Path) -> None:
    web.usage = {"prompt_tokens": 100, "completion_tokens": 100}  # 0.0003 each, estimated at 0.000114
    with pytest.raises(RecipeError, match=r"0\.0003 of it is spent and the next answer may cost.*; 1 of 3 answers"):
        ask(web, root, max_cost=0.0004)
    assert sum(web.asked.values()) == 1
    with pytest.raises(RecipeError, match=r"2 answers are estimated at .*0\.0003 is spent"):
        ask(web, root, max_cost=0.0004)
    assert ask(web, root, max_cost=0.01)["answers"] == 3 and sum(web.asked.values()) == 3


def test_lost_requests_count_against_the_cap_in_later_runs_too(web: OpenAIServer, root: Path) -> None:
    web.script = ["cut"] * 4
    with pytest.raises(TransientError):
        ask(web, root, max_cost=0.001)
    lost = sum(line["cost"] for line in stored(root, "lost"))
    assert len(stored(root, "lost")) == 4 and lost == pytest.approx(4 * 0.000114)
    with pytest.raises(RecipeError, match=r"is spent"):
        ask(web, root, max_cost=0.0007)


def everything_written(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("trouble", ["ok", "400", "401", "429", "echo", "garbage", "reset"])
def test_the_key_is_never_written(
    web: OpenAIServer, root: Path, trouble: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import traceback

    caplog.set_level(0)
    web.behaviour, said = (lambda text: trouble if text == "beta" else "ok"), ""
    try:
        ask(web, root)
        assert trouble == "ok"
    except FactoryError as error:
        said = "".join(traceback.format_exception(error)) + repr(error)
        assert trouble != "ok"
    out, err = capfd.readouterr()
    assert b"ALPHA" in everything_written(root) and "teach: 3 of 3 answers to ask for" in err
    for written in (everything_written(root).decode(), said, out, err, caplog.text, repr(teacher(web))):
        assert KEY not in written


@pytest.mark.parametrize("value", ["", "  ", "two words", "sk-ü", "sk\x7f"])
def test_a_key_that_cannot_be_one_is_not_repeated(
    web: OpenAIServer, root: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TEACHER_KEY", value)
    with pytest.raises(RecipeError, match=r"teach\.key_variable: \$TEACHER_KEY (is not set|holds blanks)") as caught:
        ask(web, root)
    assert not value.strip() or value not in str(caught.value)
    assert not web.asked


def test_a_keys_object_tells_nothing() -> None:
    import pickle

    from pipelines.remote_teacher.key import Key

    key = Key("TEACHER_KEY")
    assert KEY not in f"{key!r} {key}" and KEY.encode() not in pickle.dumps(key)
    assert key.hidden(f"wrong key {KEY}!") == "wrong key ***!"


def test_a_prompt_that_changed_is_refused(web: OpenAIServer, root: Path) -> None:
    (root / "prompts" / "back.txt").write_text("other {text}", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"prompt_sha256: .*back\.txt has sha256 [0-9a-f]{64}, the recipe says"):
        ask(web, root)


@pytest.mark.parametrize("text", ["no place", "{text} and {text}"])
def test_a_prompt_needs_one_place_for_the_row(web: OpenAIServer, root: Path, text: str) -> None:
    import hashlib

    (root / "prompts" / "back.txt").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"holds \{text\} [02] times; write it once"):
        ask(web, root, prompt_sha256=hashlib.sha256(text.encode()).hexdigest())


def test_a_missing_prompt(web: OpenAIServer, root: Path) -> None:
    with pytest.raises(RecipeError, match=r"prompt_file: .*cannot be read"):
        ask(web, root, prompt_file="prompts/none.txt")


def test_labels_are_no_texts(web: OpenAIServer, root: Path) -> None:
    with pytest.raises(RecipeError, match="a classifier's labels need another teacher"):
        ask(web, root, Split(["alpha"], labels=[0]))


def test_rows_that_were_never_asked_for_are_named(web: OpenAIServer, root: Path) -> None:
    from pipelines.errors import DataError

    ask(web, root)
    with pytest.raises(DataError, match=r"answers\.json: knows nothing of training row 1; run the stage `teach`"):
        answers(root / "out", Split(["alpha", "new"], targets=["x", "y"]))
