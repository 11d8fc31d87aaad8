"""The one training loop: length-bucketed batches, fused AdamW, warm-up and cosine, clipping, early stopping."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.config import Training
from pipelines.errors import DivergedError
from pipelines.progress import Progress

#: Batches that are sorted by length together: more saves padding, fewer mixes better.
BUCKET_BATCHES = 32

#: Loss of one batch, given the indices of its texts.
Objective = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class Score:
    """What validation says after an epoch; ordered by accuracy, then by loss."""

    accuracy: float
    loss: float

    def better_than(self, other: Score | None) -> bool:
        """Whether this score should replace the other."""
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


@dataclass(frozen=True)
class EpochRecord:
    """One row of a loss curve."""

    phase: str
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float

    def row(self) -> dict[str, Any]:
        """As a dictionary, for CSV."""
        return asdict(self)


def bucketed_batches(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random batches of similar length: every index once, sorted by length within windows of BUCKET_BATCHES batches."""
    order = rng.permutation(len(lengths))
    sizes = np.asarray(lengths)
    window = batch_size * BUCKET_BATCHES
    batches: list[np.ndarray] = []
    for start in range(0, len(order), window):
        chunk = order[start : start + window]
        chunk = chunk[np.argsort(sizes[chunk], kind="stable")]
        batches += [chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size)]
    rng.shuffle(batches)
    return batches


def train(
    model: nn.Module,
    lengths: Sequence[int],
    objective: Objective,
    validate: Callable[[], Score],
    settings: Training,
    *,
    seed: int,
    phase: str,
    epochs: int,
) -> list[EpochRecord]:
    """Train in place and leave the best epoch's weights in the model, which ends in evaluation mode.

    `lengths` are the texts' token counts; `objective` answers the loss of a batch of their indices. Returns one record an epoch.
    Where memory does not suffice, batches go through in halves from then on. Raises DivergedError where the loss stops being a
    number, with the last good epoch's weights in the model.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer = _adamw(model, settings)
    steps = epochs * math.ceil(len(lengths) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warm_cosine(step, steps, settings.warmup_ratio)
    )
    best: Score | None = None
    kept: dict[str, Tensor] = {}
    records: list[EpochRecord] = []
    waited = 0
    with Progress(phase, steps) as progress:
        walk = _Walk(model, optimizer, objective, settings, progress)
        for epoch in range(1, epochs + 1):
            model.train()
            losses = []
            for batch in bucketed_batches(lengths, settings.batch_size, rng):
                try:
                    losses.append(walk.step(batch))
                except _NotANumberError as error:
                    raise _diverged(f"{phase}, epoch {epoch}: {error}", model, kept) from error
                schedule.step()
                progress.advance()
            model.eval()
            score = validate()
            if not math.isfinite(score.loss):
                said = f"the validation loss is {score.loss}; lower training.learning_rate"
                raise _diverged(f"{phase}, epoch {epoch}: {said}", model, kept)
            records.append(EpochRecord(phase, epoch, float(np.mean(losses)), score.loss, score.accuracy))
            progress.note(
                f"epoch {epoch}: loss {records[-1].train_loss:.4f}, validation {score.loss:.4f}, accuracy {score.accuracy:.4f}"
            )
            waited += 1
            if score.better_than(best):
                best, waited = score, 0
                kept = copy.deepcopy(model.state_dict())
            if waited >= settings.patience:
                break
    model.load_state_dict(kept)
    return records


def _diverged(message: str, model: nn.Module, kept: dict[str, Tensor]) -> DivergedError:
    """The error, with the best epoch's weights in the model where there is one."""
    if kept:
        model.load_state_dict(kept)
    return DivergedError(message, model if kept else None)


class _NotANumberError(Exception):
    """The loss of a batch is no number."""


@dataclass
class _Walk:
    """One optimizer's way down. `parts` is how many pieces a batch is cut into; it doubles when memory does not suffice."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    settings: Training
    progress: Progress
    parts: int = 1

    def step(self, batch: np.ndarray) -> float:
        """Learn from one batch; its loss."""
        while True:
            try:
                value = self._gradients(batch)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.parts >= len(batch):
                    raise
            self._halve(len(batch))
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        return value

    def _gradients(self, batch: np.ndarray) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for piece in np.array_split(batch, min(self.parts, len(batch))):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=uses_bf16(self.settings)):
                loss = self.objective(piece)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise _NotANumberError(
                    f"the loss is {value} on the batch of texts {sorted(batch.tolist())[:8]}; lower training.learning_rate"
                )
            share = len(piece) / len(batch)
            (loss * share if self.parts > 1 else loss).backward()
            total += value * share
        return total

    def _halve(self, size: int) -> None:
        """Outside of the except block: the failed pass' tensors are free by now."""
        self.parts *= 2
        self.progress.note(
            f"out of memory with {-(-size * 2 // self.parts)} texts at once; going on with {-(-size // self.parts)}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: torch has a type for it on GPUs alone; the CPU's allocator says it in words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def uses_bf16(settings: Training) -> bool:
    """Whether the forward pass runs in bf16. Decided by the processor and never by a timing: the same machine, the same bytes."""
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return settings.precision == "bf16" or (settings.precision == "auto" and native)


def _adamw(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """Fused AdamW; decay on matrices, none on vectors and embeddings."""
    embeddings = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding | CompactEmbedding)
        for weight in module.parameters()
    }
    decayed = [weight for weight in model.parameters() if weight.ndim > 1 and id(weight) not in embeddings]
    spared = [weight for weight in model.parameters() if weight.ndim <= 1 or id(weight) in embeddings]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def _warm_cosine(step: int, steps: int, warmup_ratio: float) -> float:
    warm = round(steps * warmup_ratio)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class CompactEmbedding(nn.Module):  # type: ignore[misc]
    """The rows of an embedding that a corpus uses, addressed by the old ids."""

    def __init__(self, full: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(full.weight.data[used].clone())
        position = torch.zeros(full.num_embeddings, dtype=torch.long)
        position[used] = torch.arange(len(used))
        self.register_buffer("position", position, persistent=False)
        self.padding = int(position[full.padding_idx]) if full.padding_idx is not None else None

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors [..., H] of ids [...]."""
        return F.embedding(self.position[ids], self.weight, self.padding)


@contextmanager
def compact_embeddings(model: Any, rows: Iterable[Sequence[int]]) -> Iterator[None]:
    """Train only the embedding rows that `rows` use; the others are put back untouched.

    Exact: an unused row has no gradient and embeddings have no decay, so AdamW would leave it as it is, at the price of
    walking over all of it in every step.
    """
    full: nn.Embedding = model.get_input_embeddings()
    used = torch.tensor(
        sorted(
            {token for row in rows for token in row} | ({full.padding_idx} if full.padding_idx is not None else set())
        )
    )
    compact = CompactEmbedding(full, used)
    model.set_input_embeddings(compact)
    try:
        yield
    finally:
        full.weight.data[used] = compact.weight.data
        model.set_input_embeddings(full)
