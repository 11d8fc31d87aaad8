"""Models that are closed: no use afterwards, calls under way end well, and the memory comes back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from slm_registry import Model, Registry, TextClassifier, UsageError
from slm_registry.runtime.loading import load_folder

from tests.registry.helpers import REPOSITORY, make_bundle

TEXTS = ["where is my parcel", "money back", "hello", "", "parcel money hello back arrive", "unheard of"] * 4


def test_closed_is_closed(folder_registry: Registry, bundle: Path) -> None:
    folder_registry.publish(bundle, "m", lineage={}, alias="production")
    with folder_registry.load("m@production") as model:
        assert isinstance(model, Model)
        assert model.predict(["hello"])[0].label == "other"
        assert not model.closed
        assert model.resolved == folder_registry.resolve("m@production")
    assert model.closed
    model.close()
    for use in (lambda: model.predict(["x"]), lambda: model.predict_proba([]), model.__enter__):
        with pytest.raises(UsageError, match="the model is closed; load it again"):
            use()


def test_it_closes_when_the_block_fails(bundle: Path) -> None:
    model = TextClassifier.from_folder(bundle)
    with pytest.raises(ZeroDivisionError), model:
        _ = 1 / 0
    assert model.closed


def test_batch_size_threads_and_length_are_settable(folder_registry: Registry, bundle: Path) -> None:
    folder_registry.publish(bundle, "m", lineage={})
    plain = folder_registry.load("m").predict_proba(TEXTS)
    model = folder_registry.load("m", threads=2, max_length=5, batch_size=3)
    assert (model.batch_size, model.max_length) == (3, 5)
    sizes: Counter[int] = Counter()
    logits = model._logits
    model._logits = lambda session, rows: (sizes.update([len(rows)]), logits(session, rows))[1]  # type: ignore[method-assign]
    np.testing.assert_allclose(model.predict_proba(TEXTS), plain, atol=1e-6)
    assert sizes == {3: 8}
    assert model.predict(TEXTS, batch_size=24) == model.predict(TEXTS)
    assert sizes == {3: 16, 24: 1}
    for wrong in (0, -1, 2.5, True, None):
        with pytest.raises(UsageError, match="batch_size is"):
            load_folder(bundle, batch_size=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 2])
def test_many_threads_get_what_one_gets(bundle: Path, threads: int) -> None:
    model = TextClassifier.from_folder(bundle, threads=threads)
    # Of one size each, so that the padding and with it every bit of the answer is the same.
    expected = model.predict(TEXTS)
    with ThreadPoolExecutor(16) as pool:
        for found in pool.map(lambda _: model.predict(TEXTS), range(400)):
            assert found == expected


def test_calls_under_way_end_well_while_another_thread_closes(bundle: Path) -> None:
    outcomes: Counter[str] = Counter()
    for _ in range(30):
        model = TextClassifier.from_folder(bundle)
        expected = model.predict(TEXTS)
        begun = threading.Barrier(5)

        def work(
            model: TextClassifier = model, begun: threading.Barrier = begun, expected: list[object] = expected
        ) -> None:  # type: ignore[assignment]
            begun.wait()
            while True:
                try:
                    assert model.predict(TEXTS) == expected
                    outcomes["answered"] += 1
                except UsageError:
                    outcomes["refused"] += 1
                    return

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(work) for _ in range(4)]
            begun.wait()
            time.sleep(0.003)
            model.close()
            for future in running:
                future.result(timeout=60)
    assert outcomes["refused"] == 120
    assert outcomes["answered"] > 0


MEMORY = """
import gc, json, sys, psutil
from slm_registry import TextClassifier

def resident():
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6

with TextClassifier.from_folder(sys.argv[1]) as model:
    model.predict(["hello"])
start = resident()
models = [TextClassifier.from_folder(sys.argv[1]) for _ in range(4)]
for model in models: model.predict(["hello"])
held = resident()
for model in models: model.close()
print(json.dumps([start, held, resident()]))
"""


def test_close_gives_the_memory_back(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "large", ballast=10_000_000)
    environment = {"PYTHONPATH": str(REPOSITORY / "registry"), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(bundle)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    start, held, after = json.loads(done.stdout)
    # Four models of 40 MB each; the names still stand, only the weights are gone.
    assert held - start > 150
    assert after - start < 20
