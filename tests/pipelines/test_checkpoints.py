"""A training that was killed at any step goes on, and ends at the bytes of one that nothing disturbed."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pipelines.checkpoints import VARIABLE, checkpoints_of
from pipelines.config import Training
from pipelines.errors import RecipeError
from pipelines.techniques.course import EpochRecord, Kept, Score
from pipelines.techniques.training import Piece, compact_embeddings, train
from tests.mortal import Killed, lasting, mortal
from tests.recipes import recipe

SETTINGS = Training(
    epochs=3,
    batch_size=8,
    learning_rate=0.05,
    warmup_ratio=0.1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    patience=2,
    precision="fp32",
)
IDS = torch.tensor([[1, 2], [3, 4], [1, 4], [2, 2], [5, 0], [3, 1], [4, 4], [5, 5]] * 4)
LABELS = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1] * 4)
STEPS = 3 * 4


class Toy(nn.Module):
    """Dropout, rows of an embedding that stay as they are, and a weight that stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4, padding_idx=0)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4, 2)
        self.again = self.head

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, module: nn.Module) -> None:
        self.embedding = module

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.drop(self.embedding(ids)).mean(1))


def trained(
    keeper: Any, scores: Callable[[Toy], float] | None = None, seed: int = 0
) -> tuple[Toy, list[EpochRecord], Tensor]:
    """The model, its curve, and what is drawn after the training."""
    torch.manual_seed(seed)
    model = Toy()

    def objective(piece: Piece, random: np.random.Generator) -> Tensor:
        noise = torch.from_numpy(random.normal(size=(len(piece.texts), 2))).float()
        return nn.functional.cross_entropy(model(IDS[piece.texts]) + noise, LABELS[piece.texts])

    def validate() -> Score:
        return Score(scores(model) if scores else 0.5, float(model.head.weight.detach().abs().sum()))

    with compact_embeddings(model, IDS.tolist()):
        records = train(
            model,
            [2] * len(IDS),
            objective,
            validate,
            SETTINGS,
            seed=3,
            phase="toy",
            epochs=3,
            keeper=keeper,
        )
    return model, records, torch.rand(3)


def same(one: tuple[Toy, Any, Tensor], other: tuple[Toy, Any, Tensor]) -> bool:
    weights = zip(one[0].state_dict().values(), other[0].state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in weights) and one[1] == other[1] and torch.equal(one[2], other[2])


@pytest.mark.parametrize("looks", range(STEPS))
def test_killed_before_any_batch_it_ends_at_the_same_bytes(tmp_path: Path, looks: int) -> None:
    whole = trained(lasting(tmp_path / "whole"))
    with pytest.raises(Killed):
        trained(mortal(tmp_path / "toy", looks))
    assert same(trained(lasting(tmp_path / "toy")), whole)


def test_killed_again_and_again(tmp_path: Path) -> None:
    whole = trained(lasting(tmp_path / "whole"))
    for _ in range(STEPS - 2):  # each process gets one batch further
        with pytest.raises(Killed):
            trained(mortal(tmp_path / "toy", 2))
    assert same(trained(mortal(tmp_path / "toy", 2)), whole)


def test_the_best_epoch_and_the_patience_outlive_the_process(tmp_path: Path) -> None:
    """The first epoch is the best; two worse ones end it, whoever made them."""
    falling = iter([0.9, 0.8, 0.7, 0.6])
    whole = trained(lasting(tmp_path / "whole"), lambda _: next(falling))
    rest = iter([0.9, 0.8, 0.7, 0.6])
    with pytest.raises(Killed):
        trained(mortal(tmp_path / "toy", 9), lambda _: next(rest))
    assert same(trained(lasting(tmp_path / "toy"), lambda _: next(rest)), whole)


def test_what_has_ended_is_not_trained_again(tmp_path: Path) -> None:
    whole = trained(lasting(tmp_path / "toy"))
    assert same(trained(mortal(tmp_path / "toy", 0)), whole)


def test_not_every_batch_is_kept(tmp_path: Path) -> None:
    """A kept moment is worth a minute of training; what it cost to write decides when the next comes."""
    with pytest.raises(Killed):
        trained(mortal(tmp_path / "toy", 11, seconds=1000.0))
    assert not list((tmp_path / "toy").rglob("*.safetensors"))


@pytest.mark.parametrize("damage", [b"", b"no tensors", None])
def test_a_damaged_file_is_said_and_counts_as_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes | None
) -> None:
    whole = trained(lasting(tmp_path / "whole"))
    with pytest.raises(Killed):
        trained(mortal(tmp_path / "toy", 5))
    file = tmp_path / "toy" / "key" / "toy.safetensors"
    file.write_bytes(file.read_bytes()[:-7] if damage is None else damage)
    assert same(trained(lasting(tmp_path / "toy")), whole)
    assert "toy.safetensors: damaged (" in capsys.readouterr().err


def test_what_a_killed_process_was_writing_goes(tmp_path: Path) -> None:
    """Each kill would leave a model and its optimizer."""
    lasting(tmp_path / "toy")
    cut = tmp_path / "toy" / "key" / "distill.1234.partial"
    cut.write_bytes(b"half")
    lasting(tmp_path / "toy")
    assert not cut.exists() and cut.parent.exists()


def test_a_training_of_other_things_is_let_go_of(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trained(mortal(tmp_path / "toy", 5))
    trained(lasting(tmp_path / "toy", "other"))
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["other"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left (os error 28)"), MemoryError()],
)
def test_what_cannot_be_kept_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def full(_: Any, path: Path, **__: Any) -> None:
        path.write_bytes(b"half")
        raise error

    whole = trained(lasting(tmp_path / "whole"))
    monkeypatch.setattr("safetensors.torch.save_file", full)
    keeper = lasting(tmp_path / "toy", seconds=0.0)
    assert same(trained(keeper), whole)
    assert "toy goes on, but would begin anew" in capsys.readouterr().err
    keeper.close()
    assert not (tmp_path / "toy").exists()


def test_a_training_that_began_with_other_weights_is_not_gone_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another file than those of the key decided them: a teacher's folder was edited meanwhile."""
    with pytest.raises(Killed):
        trained(mortal(tmp_path / "toy", 5), seed=1)
    assert same(trained(lasting(tmp_path / "toy")), trained(lasting(tmp_path / "whole")))
    assert "toy: what is kept began with other weights, texts or settings" in capsys.readouterr().err


def test_workers_keep_theirs_side_by_side_and_nothing_after_the_end(tmp_path: Path) -> None:
    keeper = lasting(tmp_path / "toy")
    there = pickle.loads(pickle.dumps(keeper))
    kept = Kept({"model/weight": torch.zeros(2)}, {"ended": True})
    keeper.keep("recover 1/2", kept)
    there.keep("recover 2/2", kept)
    assert there.load("recover 1/2") is not None and keeper.load("recover 2/2") is not None
    keeper.remove()
    there.keep("recover 2/2", kept)
    assert not (tmp_path / "toy").exists()


def test_the_place_is_that_of_what_decides_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows").write_bytes(b"1")
    block = recipe()

    def key(stage: str = "teach", **sections: Any) -> str:
        given = {"task": block.task, "teach": block.teach} | sections
        return checkpoints_of(stage, tmp_path / "teacher", {"clean": tmp_path / "data"}, given).key

    first = key()
    assert key() == first
    others = {key("distill"), key(task=block.task.model_copy(update={"seed": 99})), key(teach=None)}
    (tmp_path / "data" / "rows").write_bytes(b"2")
    others.add(key())
    (tmp_path / "data" / "rows").rename(tmp_path / "data" / "lines")
    others.add(key())
    assert len(others | {first}) == 6


@pytest.mark.parametrize("said", ["soon", "-1", "nan"])
def test_seconds_are_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(VARIABLE, said)
    with pytest.raises(RecipeError, match=rf"{VARIABLE} is '{said}'; it names the seconds"):
        checkpoints_of("teach", tmp_path / "teacher", {}, {})


def test_tensors_are_kept_as_they_were_when_they_were_kept(tmp_path: Path) -> None:
    keeper = lasting(tmp_path / "kept", seconds=0.0)
    weight = torch.arange(4.0)
    keeper.keep("a phase 1/2", Kept({"model/weight": weight}, {"ended": False, "step": 1}))
    weight += 1  # what is kept is written at once
    found = keeper.load("a phase 1/2")
    assert found is not None and found.tensors["model/weight"].tolist() == [0, 1, 2, 3]
    assert keeper.load("a phase 2/2") is None
    keeper.remove()
    assert keeper.load("a phase 1/2") is None
