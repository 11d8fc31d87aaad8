from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipelines.config import Training
from pipelines.errors import DivergedError, ModelError
from pipelines.techniques.course import Score, Unkept
from pipelines.techniques.training import Piece, bucketed_batches, compact_embeddings, train

SETTINGS = Training(
    epochs=4,
    batch_size=8,
    learning_rate=0.05,
    warmup_ratio=0.1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    patience=2,
    precision="fp32",
)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=400), st.integers(1, 40), st.integers(0, 99))
def test_batches_hold_every_text_once(lengths: list[int], size: int, seed: int) -> None:
    batches = bucketed_batches(lengths, size, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert max(len(batch) for batch in batches) <= size


def test_batches_save_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 1000).tolist()

    def padded(batches: list[np.ndarray]) -> int:
        return sum(len(batch) * max(lengths[at] for at in batch) for batch in batches)

    plain = [np.arange(at, min(at + 32, 1000)) for at in range(0, 1000, 32)]
    assert padded(bucketed_batches(lengths, 32, np.random.default_rng(0))) < 0.65 * padded(plain)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4, padding_idx=0)
        self.head = nn.Linear(4, 2)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, module: nn.Module) -> None:
        self.embedding = module

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).mean(1))


IDS = torch.tensor([[1, 2], [3, 4], [1, 4], [2, 2], [5, 0], [3, 1], [4, 4], [5, 5]] * 4)
LABELS = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1] * 4)


def run(model: Toy, scores: list[Score], epochs: int = 4) -> list[float]:
    answers = iter(scores)
    records = train(
        model,
        [2] * len(IDS),
        lambda piece, _: nn.functional.cross_entropy(model(IDS[piece.texts]), LABELS[piece.texts]),
        lambda: next(answers),
        SETTINGS,
        seed=3,
        phase="toy",
        epochs=epochs,
        keeper=Unkept(),
    )
    return [record.train_loss for record in records]


def test_it_learns_and_repeats_itself() -> None:
    curves = []
    for _ in range(2):
        torch.manual_seed(0)
        curves.append(run(Toy(), [Score(0.1 * at, 1.0) for at in range(4)]))
    assert curves[0] == curves[1]
    assert curves[0][-1] < curves[0][0]


def test_the_best_epoch_is_kept_and_patience_ends() -> None:
    torch.manual_seed(0)
    model = Toy()
    seen: list[Tensor] = []
    scores = iter([Score(0.5, 1.0), Score(0.9, 1.0), Score(0.8, 1.0), Score(0.9, 1.1)])

    def validate() -> Score:
        seen.append(model.head.weight.detach().clone())
        return next(scores)

    records = train(
        model,
        [2] * len(IDS),
        lambda piece, _: nn.functional.cross_entropy(model(IDS[piece.texts]), LABELS[piece.texts]),
        validate,
        SETTINGS,
        seed=3,
        phase="toy",
        epochs=10,
        keeper=Unkept(),
    )
    assert len(records) == 4  # epoch 2 was best; two more without a better one
    assert torch.equal(model.head.weight, seen[1])
    assert not model.training


def test_a_loss_that_is_no_number_names_the_batch() -> None:
    model = Toy()
    with pytest.raises(ModelError, match=r"toy, epoch 1: the loss is nan on the batch of texts \["):
        train(
            model,
            [2] * 8,
            lambda piece, _: model(IDS[piece.texts]).sum() * float("nan"),
            lambda: Score(0, 0),
            SETTINGS,
            seed=0,
            phase="toy",
            epochs=1,
            keeper=Unkept(),
        )


def test_after_a_loss_that_is_no_number_the_last_good_epoch_is_there() -> None:
    model = Toy()
    seen: list[Tensor] = []

    def validate() -> Score:
        seen.append(model.head.weight.detach().clone())
        return Score(0.5, 1.0)

    def objective(piece: Piece, _: np.random.Generator) -> Tensor:
        return nn.functional.cross_entropy(model(IDS[piece.texts]), LABELS[piece.texts]) * (
            float("nan") if seen else 1.0
        )

    with pytest.raises(ModelError, match=r"toy, epoch 2: the loss is nan"):
        train(
            model,
            [2] * len(IDS),
            objective,
            validate,
            SETTINGS,
            seed=0,
            phase="toy",
            epochs=3,
            keeper=Unkept(),
        )
    assert torch.equal(model.head.weight, seen[0])


def test_a_validation_loss_that_is_no_number_ends_it_too() -> None:
    """The last step's weights may be no numbers although every batch's loss was one."""
    model, scores = Toy(), iter([Score(0.5, 1.0), Score(0.0, float("nan"))])
    seen: list[Tensor] = []

    def validate() -> Score:
        seen.append(model.head.weight.detach().clone())
        return next(scores)

    def objective(piece: Piece, _: np.random.Generator) -> Tensor:
        return nn.functional.cross_entropy(model(IDS[piece.texts]), LABELS[piece.texts])

    with pytest.raises(DivergedError, match=r"toy, epoch 2: the validation loss is nan; lower") as raised:
        train(
            model,
            [2] * len(IDS),
            objective,
            validate,
            SETTINGS,
            seed=0,
            phase="toy",
            epochs=3,
            keeper=Unkept(),
        )
    assert raised.value.model is model and torch.equal(model.head.weight, seen[0])


def test_without_memory_a_batch_goes_in_halves(capsys: pytest.CaptureFixture[str]) -> None:
    """The same weights as with memory for all of it, and the halving is said."""
    weights = []
    for room in (8, 3):
        torch.manual_seed(0)
        model = Toy()
        tried: list[int] = []

        def objective(
            piece: Piece,
            _: np.random.Generator,
            model: Toy = model,
            room: int = room,
            tried: list[int] = tried,
        ) -> Tensor:
            tried.append(len(piece.texts))
            if len(piece.texts) > room:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
            return piece.share * nn.functional.cross_entropy(model(IDS[piece.texts]), LABELS[piece.texts])

        scores = iter([Score(0.1, 0.0), Score(0.2, 0.0)])
        train(
            model,
            [2] * len(IDS),
            objective,
            lambda scores=scores: next(scores),
            SETTINGS,
            seed=3,
            phase="toy",
            epochs=2,
            keeper=Unkept(),
        )
        weights.append(model.head.weight.detach().clone())
        assert set(tried) == ({8} if room == 8 else {8, 4, 2})
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    assert "out of memory with 8 texts at once; going on with 4" in capsys.readouterr().err


def test_an_error_that_is_not_memory_stays_what_it_is() -> None:
    def objective(_: Piece, __: np.random.Generator) -> Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(
            Toy(),
            [2] * 8,
            objective,
            lambda: Score(0, 0),
            SETTINGS,
            seed=0,
            phase="toy",
            epochs=1,
            keeper=Unkept(),
        )


def test_compact_embeddings_change_nothing_but_speed() -> None:
    """Trained with and without: the same weights, used rows and unused ones."""
    weights = []
    for compact in (False, True):
        torch.manual_seed(0)
        model = Toy()
        scores = [Score(at, 0.0) for at in range(4)]
        if compact:
            with compact_embeddings(model, IDS.tolist()):
                run(model, scores)
        else:
            run(model, scores)
        assert isinstance(model.embedding, nn.Embedding)
        weights.append(model.embedding.weight.detach().clone())
    assert torch.allclose(weights[0], weights[1], atol=1e-7)
    torch.manual_seed(0)
    assert torch.equal(weights[1][6:], Toy().embedding.weight[6:])  # ids 6 to 19 never occur
    assert not torch.equal(weights[1][1:6], Toy().embedding.weight[1:6])
