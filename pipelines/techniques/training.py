"""The one training loop: length-bucketed batches, fused AdamW, warm-up and cosine, clipping, early stopping."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.config import Training
from pipelines.errors import DivergedError
from pipelines.progress import Progress
from pipelines.ranks import Ranks, ranks
from pipelines.techniques.course import Course, EpochRecord, Keeper, Score, batch_order, chance, digest_of_start

#: Batches that are sorted by length together: more saves padding, fewer mixes better.
BUCKET_BATCHES = 32


@dataclass(frozen=True)
class Piece:
    """Some of a batch's texts: `batch` [B] are the indices of all of them, `places` [P] those of the piece in the batch."""

    batch: np.ndarray
    places: np.ndarray

    @property
    def texts(self) -> np.ndarray:
        """The indices of the piece's texts, [P]."""
        texts: np.ndarray = self.batch[self.places]
        return texts

    @property
    def share(self) -> float:
        """Its share of the batch's texts."""
        return len(self.places) / len(self.batch)


#: What a piece adds to the loss of its batch, given the random numbers of the step: over all pieces it adds up to the batch's loss, whatever that is a mean over.
Objective = Callable[[Piece, np.random.Generator], Tensor]


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
    keeper: Keeper,
) -> list[EpochRecord]:
    """Train in place and leave the best epoch's weights in the model, which ends in evaluation mode.

    `lengths` are the texts' token counts; `objective` answers the loss of a batch of their indices, piece by piece. Returns one record an
    epoch. Processes that train together (pipelines/ranks.py) end with the same weights.
    Where memory does not suffice, batches go through in halves from then on. A training that `keeper` has goes on where it stood,
    and ends at the same bytes as one that nothing disturbed. Raises DivergedError where the loss stops being a number, with the
    last good epoch's weights in the model.
    """
    here = ranks()
    course = Course(model, _adamw(model, settings), digest_of_start(model, list(lengths), settings, seed, epochs))
    found = keeper.load(phase)
    goes_on = found is not None and course.unpack(found)
    here.agree(f"{phase} {course.begun} {course.step} {course.ended}")
    finished = course.ended
    an_epoch = math.ceil(len(lengths) / settings.batch_size)
    with Progress(phase, epochs * an_epoch, done=course.step) as progress:
        if found is not None:
            progress.note(_of_what_was_kept(course, goes_on))
        walk = _Walk(course, objective, settings, seed, epochs * an_epoch, progress, here)
        while not course.ended:
            batches = bucketed_batches(lengths, settings.batch_size, batch_order(seed, course.epoch))
            _learn_epoch(walk, batches[course.step % an_epoch :], phase, keeper)
            _judge_epoch(course, lambda: here.lead(validate()), phase, progress)
            course.ended = course.epoch > epochs or course.waited >= settings.patience
        if not finished:
            model.load_state_dict(course.kept)
            keeper.keep(phase, course.packed())
    model.eval()
    torch.manual_seed(seed)  # what follows may draw too, and must not see how many steps were made by this process
    return course.records


def _of_what_was_kept(course: Course, goes_on: bool) -> str:
    if not goes_on:
        return "what is kept began with other weights, texts or settings; this one begins anew"
    return f"{'ended before' if course.ended else 'goes on'}, {course.step} steps done"


def _learn_epoch(walk: _Walk, batches: Sequence[np.ndarray], phase: str, keeper: Keeper) -> None:
    """The rest of an epoch's batches."""
    course = walk.course
    course.model.train()
    for batch in batches:
        if keeper.due():
            keeper.keep(phase, course.packed())
        try:
            course.losses.append(walk.step(batch))
        except _NotANumberError as error:
            raise _diverged(f"{phase}, epoch {course.epoch}: {error}", course) from error
        course.step += 1
        walk.progress.advance()


def _judge_epoch(course: Course, validate: Callable[[], Score], phase: str, progress: Progress) -> None:
    """Validate, and keep the weights of the best epoch."""
    course.model.eval()
    score, epoch = validate(), course.epoch
    if not math.isfinite(score.loss):
        said = f"the validation loss is {score.loss}; lower training.learning_rate"
        raise _diverged(f"{phase}, epoch {epoch}: {said}", course)
    best = course.best_as(score)
    record = EpochRecord(phase, epoch, float(np.mean(course.losses)), score.loss, score.accuracy)
    course.records.append(record)
    course.losses.clear()
    if score.better_than(best):
        course.best, course.kept = epoch, copy.deepcopy(course.model.state_dict())
    progress.note(
        f"epoch {epoch}: loss {record.train_loss:.4f}, validation {score.loss:.4f}, accuracy {score.accuracy:.4f}"
    )


def _diverged(message: str, course: Course) -> DivergedError:
    """The error, with the best epoch's weights in the model where there is one."""
    if course.kept:
        course.model.load_state_dict(course.kept)
    return DivergedError(message, course.model if course.kept else None)


class _NotANumberError(Exception):
    """The loss of a batch is no number."""


@dataclass
class _Walk:
    """One optimizer's way down. The number of pieces of a batch doubles when memory does not suffice."""

    course: Course
    objective: Objective
    settings: Training
    seed: int
    steps: int
    progress: Progress
    ranks: Ranks

    def step(self, batch: np.ndarray) -> float:
        """Learn from one batch; its loss."""
        course = self.course
        while True:
            try:
                value = self._gradients(batch)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or course.parts >= len(batch):
                    raise
            self._halve(len(batch))
        value = self.ranks.joined(course.model, value)
        if not math.isfinite(value):
            raise _NotANumberError(
                f"the loss is {value} on the batch of texts {sorted(batch.tolist())[:8]}; lower training.learning_rate"
            )
        nn.utils.clip_grad_norm_(course.model.parameters(), self.settings.max_grad_norm)
        rate = self.settings.learning_rate * _warm_cosine(course.step, self.steps, self.settings.warmup_ratio)
        for group in course.optimizer.param_groups:
            group["lr"] = rate
        course.optimizer.step()
        return value

    def _gradients(self, batch: np.ndarray) -> float:
        """Those of this process' share of a batch; its part of the batch's loss."""
        self.course.optimizer.zero_grad(set_to_none=True)
        random = chance(self.seed, self.course.step, self.ranks.index)
        mine, total = self.ranks.share(np.arange(len(batch))), 0.0
        for places in np.array_split(mine, min(self.course.parts, len(mine))) if len(mine) else ():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=uses_bf16(self.settings)):
                loss = self.objective(Piece(batch, places), random)
            loss.backward()
            total += float(loss.detach())
        return total

    def _halve(self, size: int) -> None:
        """Outside of the except block: the failed pass' tensors are free by now."""
        self.course.parts = parts = self.course.parts * 2
        self.progress.note(
            f"out of memory with {-(-size * 2 // parts)} texts at once; going on with {-(-size // parts)}"
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
