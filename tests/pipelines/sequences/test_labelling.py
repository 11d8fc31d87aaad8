"""A `label` stage that is killed half-way: run again it leaves the same bytes, and does not do again what was done."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pipelines.bundle import read_json
from pipelines.families.causal import CausalModel
from pipelines.sequences import labelling
from pipelines.token_signals import TokenSignalsWriter
from tests.sequence_chain import Chain, clean_data
from tests.tiny_generators import tiny_causal
from tests.token_examples import files_of

BATCH = 2
SETTINGS: dict[str, Any] = {
    "label__batch_size": BATCH,
    "label__texts": {"rows": 12, "prompt_tokens": 4, "max_new_tokens": 6, "temperature": 1.0, "replace": False},
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    clean = clean_data(folder / "clean", "text-generation")
    return Chain("text-generation", tiny_causal(folder / "source", "gpt2"), clean, folder, frozenset())


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


class Calls:
    """Counts the calls of a method, and ends the run in place of the `last` one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self.count, self.last, self._real = 0, math.inf, getattr(CausalModel, method)
        monkeypatch.setattr(CausalModel, method, self._wrapped())

    def _wrapped(self) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            self.count += 1
            if self.count == self.last:
                raise Killed
            return self._real(*given)

        return call


@pytest.mark.parametrize("signals", ["top_k", "sampled"])
def test_a_run_that_was_killed_goes_on_where_it_was(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, signals: str
) -> None:
    monkeypatch.setattr(labelling, "TokenSignalsWriter", partial(TokenSignalsWriter, shard_bytes=600))
    settings = SETTINGS | {"label__signals": {"kind": signals, "k": 4}}
    passes, writing = Calls(monkeypatch, "rows"), Calls(monkeypatch, "write")
    whole = chain.labelled(f"{signals}-whole", **settings)
    examples, all_passes = read_json(whole / "store" / "index.json")["facts"]["examples"], passes.count

    passes.count, passes.last = 0, all_passes * 2 // 3
    with pytest.raises(Killed):
        chain.labelled(f"{signals}-killed", **settings)
    killed = chain.folder / f"{signals}-killed"
    done = sum(shard["examples"] for shard in read_json(killed / "store" / "index.json")["shards"])
    assert 2 * BATCH < done < examples

    passes.count, passes.last, writing.count = 0, math.inf, 0
    chain.labelled(f"{signals}-killed", **settings)
    assert files_of(killed / "store") == files_of(whole / "store")
    # One pass asks how many classes there are; from the last whole batch that is stored on, all are read.
    assert passes.count == 1 + math.ceil((examples - done // BATCH * BATCH) / BATCH) < all_passes
    assert writing.count == 0
    assert (killed / "written.json").read_bytes() == (whole / "written.json").read_bytes()
