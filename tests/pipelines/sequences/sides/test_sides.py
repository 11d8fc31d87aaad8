"""Both kinds of side see and write the same with the same weights."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.data.clean import Split
from pipelines.families import sequence_family_of
from pipelines.sequences.sides import exported_side, torch_side
from tests.made_once import MadeOnce
from tests.sequence_bundles import TASKS, split_of


@pytest.fixture(scope="module", params=list(TASKS))
def folders(request: pytest.FixtureRequest, made_once: MadeOnce) -> tuple[str, Path, Path]:
    sides = made_once.sides(TASKS[request.param])
    return request.param, sides["student"], sides["exported"]


def test_the_exported_side_predicts_what_torch_does(folders: tuple[str, Path, Path]) -> None:
    task = TASKS[folders[0]]
    split = split_of(task)
    ours, theirs = exported_side(folders[2], 1, task).predict(split), torch_side(folders[1], 1, task).predict(split)
    assert ours.lengths == theirs.lengths
    assert len(ours.lengths) == len(split.texts)
    assert np.array_equal(ours.truth, theirs.truth)
    assert np.array_equal(ours.likeliest, theirs.likeliest)
    assert np.allclose(ours.nats, theirs.nats, rtol=1e-3, atol=1e-2)
    assert np.allclose(ours.confidence, theirs.confidence, atol=1e-2)


def test_both_write_the_same_alone_and_side_by_side(folders: tuple[str, Path, Path]) -> None:
    task = TASKS[folders[0]]
    sides = [exported_side(folders[2], 1, task), torch_side(folders[1], 1, task)]
    texts = [text[:20].strip() for text in split_of(task).texts]
    answers = [side.write(texts, 6) for side in sides]
    assert answers[0] == answers[1]
    assert answers[1] == [sides[1].write([text], 6)[0] for text in texts]
    assert any(one.text for one in answers[0])


def test_predictions_are_those_of_the_model_row_by_row(folders: tuple[str, Path, Path]) -> None:
    """Against the plainest way: the logits of each example alone, one softmax a prediction."""
    task = TASKS[folders[0]]
    family, split = sequence_family_of(task), split_of(task)
    bundle = family.load(folders[1])
    nats, likeliest = [], []
    for example in family.examples(bundle, split, task.max_length):
        batch = family.collate(bundle, [example])
        with torch.no_grad():
            logits = bundle.model(**batch.inputs).logits[0]
        for place, true in zip(example.places, example.classes, strict=True):
            shares = torch.softmax(logits[place].double(), -1)
            nats.append(-float(shares[true].log()))
            likeliest.append(int(shares.argmax()))
    found = torch_side(folders[1], 1, task).predict(split)
    assert np.allclose(found.nats, nats, rtol=1e-3, atol=1e-2)
    assert found.likeliest.tolist() == likeliest


def test_a_row_holds_its_own_tokens(folders: tuple[str, Path, Path]) -> None:
    """Every row's true classes, by name, say what is in that row."""
    task = TASKS[folders[0]]
    side, split = torch_side(folders[1], 1, task), split_of(task)
    found = side.predict(split)
    named = found.named(found.truth)
    if task.type == "token-classification":
        assert named == [target.split() for target in split.targets]
        return
    told = [side.tokenizer.decode(row, skip_special_tokens=True).strip() for row in found.by_row(found.truth)]
    if task.type == "text-to-text":
        assert [
            one.startswith(wanted) or wanted.startswith(one) for one, wanted in zip(told, split.targets, strict=True)
        ]
    else:
        assert told[1:] == [text.strip() for text in split.texts[1:]]
        assert split.texts[0].endswith(told[0])  # nothing stands before the very first token: it is not predicted
    assert sum(found.lengths) == len(list(chain.from_iterable(named)))


def test_a_text_of_its_own_is_tagged_without_targets(folders: tuple[str, Path, Path]) -> None:
    task = TASKS[folders[0]]
    written = torch_side(folders[1], 1, task).write(["my parcel"], 4)
    assert len(written) == 1
    assert written[0].tokens >= 1


def test_a_split_of_one_row(folders: tuple[str, Path, Path]) -> None:
    task = TASKS[folders[0]]
    whole = split_of(task)
    one = Split(whole.texts[:1], targets=whole.targets[:1])
    side = exported_side(folders[2], 1, task)
    assert side.predict(one).lengths == side.predict(whole).lengths[:1]
