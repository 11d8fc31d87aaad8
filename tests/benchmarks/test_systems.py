"""The control of the board: a teacher of probabilities alone gets the calibration that its logits would."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.systems import System, with_biases
from pipelines.techniques.calibrating import fit_biases
from tests.pipelines.techniques.test_calibrating import SHY, world


def test_the_control_answers_as_the_teacher_with_biases_of_its_logits() -> None:
    logits, labels = world(1500, SHY)
    texts = [str(at) for at in range(len(labels))]

    def predict(asked: list[str]) -> np.ndarray:
        answers: np.ndarray = logits[[int(text) for text in asked]].softmax(-1).numpy()
        return answers

    validation = SimpleNamespace(texts=texts[:1000], labels=labels[:1000].tolist())
    control = with_biases(System("teacher", predict, 7, 1.0), SimpleNamespace(validation=validation))
    found = fit_biases(logits[:1000], labels[:1000])
    assert found.ridge is not None and control.bytes == 7 and control.build_s > 1
    assert control.predict(texts[1000:]) == pytest.approx(found.of(logits[1000:]).softmax(-1).numpy(), abs=1e-3)
