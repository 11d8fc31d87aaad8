"""How a stage finds who does its work."""

from __future__ import annotations

import inspect
import pickle

import pytest

from pipelines import errors
from pipelines.errors import DivergedError, FactoryError, FanError, TargetError
from pipelines.fanning import VARIABLE, Fan, fanned
from tests.flows.works import Doing


def first_two(fan: Fan) -> list[str]:
    answers = fan.map(str.upper, ["a", "b"])
    return [next(answers), next(answers)]


def test_without_a_word_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert fanned(first_two, "try", 1) == ["A", "B"]


def test_what_is_not_asked_for_is_not_done_here(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert fanned(lambda fan: next(fan.map(Doing(tmp_path), ["one", "two"])), "try", 1) == "one done"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("no.such_module:processes:2", "No module named"),
        ("pipelines.errors:processes:2", "has no attribute 'fanned'"),
        (":2", "Empty module name"),
        ("flows.fanout:threads:2", "say processes:N, dask:ADDRESS or ray:ADDRESS"),
        ("flows.fanout:processes:0", "say processes:N"),
        ("flows.fanout:processes", "say processes:N"),
        ("flows.fanout:dask:", "say processes:N"),
    ],
)
def test_what_names_nobody_is_refused(named: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, named)
    with pytest.raises(FanError, match=said) as caught:
        fanned(first_two, "try", 1)
    assert caught.value.exit_code == 2


def test_every_error_of_the_tree_travels() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FactoryError)]
    assert len(kinds) > 10
    for kind in kinds:
        again = pickle.loads(pickle.dumps(kind("row 3: said")))
        assert (type(again), str(again)) == (kind, "row 3: said")
    assert pickle.loads(pickle.dumps(DivergedError("lost", {"weight": 1}))).model == {"weight": 1}
    assert pickle.loads(pickle.dumps(TargetError("gone", [1.5]))).measured == [1.5]
