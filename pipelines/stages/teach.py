"""Stage `teach`: a teacher learns the task, from pretrained or fresh weights, or is taken as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines import ranks
from pipelines.bundle import Bundle
from pipelines.config import ApiTeacher, FreshTeacher, ReadyTeacher, Task, Teach, TunedTeacher
from pipelines.curves import write_curve
from pipelines.data.clean import CleanData, Split, load_clean
from pipelines.errors import RecipeError
from pipelines.families import family_of, save_bundle_of, sequence_family_of
from pipelines.families.base import Family
from pipelines.families.context import check_context
from pipelines.remote_teacher import answers, ask_teacher
from pipelines.reproducible import fix_randomness
from pipelines.sources import fetch_pretrained
from pipelines.stages import Output
from pipelines.techniques.course import EpochRecord, Keeper, Score
from pipelines.techniques.scoring import score
from pipelines.techniques.token_learning import TRUE_CLASSES, TokenLesson, learn_tokens
from pipelines.techniques.training import Piece, compact_embeddings, train


def teach(
    clean: Path,
    teacher: Output,
    curve: Output,
    task: Task,
    teach: Teach | FreshTeacher | TunedTeacher | ReadyTeacher | ApiTeacher,
    keeper: Keeper,
) -> None:
    """Write the teacher's bundle and its loss curve.

    Raises ModelError where the source is not what the recipe says, or a ready teacher has other labels than the data.
    """
    fix_randomness(task)
    data = load_clean(clean)
    if isinstance(teach, Teach):
        bundle, records = _teach_classifier(data, task, teach, keeper)
    elif isinstance(teach, ApiTeacher):
        bundle, records = _learn_answers(data, teacher, task, teach, keeper)
    else:
        bundle, records = _teach_sequences(_untrained(data, task, teach), data, task, teach, keeper)
    bundle.tokenizer.model_max_length = task.max_length
    bundle.lineage = {
        "data_sha256": data.digest,
        "teacher": _origin(teach),
        "task": task.model_dump(),
        "stages": [{"stage": "teach", "params": teach.model_dump()} | ranks.facts()],
    }
    save_bundle_of(task, bundle, teacher)
    write_curve(curve, records)


def _origin(teach: Teach | FreshTeacher | TunedTeacher | ReadyTeacher | ApiTeacher) -> dict[str, str]:
    """Where the teacher's weights come from, as the lineage tells it."""
    if isinstance(teach, FreshTeacher):
        return {"source": f"fresh {teach.architecture}"}
    if isinstance(teach, ApiTeacher):
        return {"source": f"answers of {teach.model}"} | {"learner": _origin(teach.learner)["source"]}
    return {"source": teach.source, "sha256": teach.sha256}


def _teach_classifier(data: CleanData, task: Task, teach: Teach, keeper: Keeper) -> tuple[Bundle, list[EpochRecord]]:
    family, source = family_of(task), fetch_pretrained(teach.source, teach.sha256)
    ready = teach.mode == "ready"
    bundle = (family.load_ready if ready else family.load_pretrained)(source, data.labels)
    check_context(bundle.model, task, f"the model of teach.source {teach.source}")
    return bundle, [] if ready else fine_tune(family, bundle, data, task, teach, keeper)


def _learn_answers(
    data: CleanData, out: Path, task: Task, teach: ApiTeacher, keeper: Keeper
) -> tuple[Bundle, list[EpochRecord]]:
    """Ask for the answers that are not stored yet, and train the learner on them.

    A fresh tokenizer is trained on rows and answers, since the student reads the rows with it.
    """
    if ranks.ranks().count > 1:
        raise RecipeError("teach.mode api: one process asks, and it was started as one of several; start `teach` alone")
    _untrained(data, task, teach.learner)  # one that cannot be had fails before anything is paid for
    ask_teacher(teach, data.train, Path(), out)
    learned = answers(out, data.train)
    both = Split([*data.train.texts, *learned.texts], targets=[*data.train.targets, *learned.targets])
    learner = _untrained(replace(data, train=both), task, teach.learner)
    return _teach_sequences(learner, replace(data, train=learned), task, teach.learner, keeper)


def _untrained(data: CleanData, task: Task, teach: FreshTeacher | TunedTeacher | ReadyTeacher) -> Bundle:
    family = sequence_family_of(task)
    if isinstance(teach, FreshTeacher):
        bundle = family.fresh(teach, data, task.max_length)
        check_context(bundle.model, task, "the model of teach.sizes")
        return bundle
    trusted = teach.trust_remote_code.files if teach.trust_remote_code is not None else None
    folder = fetch_pretrained(teach.source, teach.sha256, trusted or ())
    load = family.load_ready if isinstance(teach, ReadyTeacher) else family.load_pretrained
    bundle = load(folder, data, trusted)
    check_context(bundle.model, task, f"the model of teach.source {teach.source}")
    return bundle


def _teach_sequences(
    bundle: Bundle, data: CleanData, task: Task, teach: FreshTeacher | TunedTeacher | ReadyTeacher, keeper: Keeper
) -> tuple[Bundle, list[EpochRecord]]:
    if isinstance(teach, ReadyTeacher):
        return bundle, []
    family = sequence_family_of(task)
    records = learn_tokens(
        family,
        bundle,
        TokenLesson(family.examples(bundle, data.train, task.max_length), None),
        family.examples(bundle, data.validation, task.max_length),
        TRUE_CLASSES,
        teach.training,
        seed=task.seed,
        phase="teach",
        epochs=teach.training.epochs,
        keeper=keeper,
    )
    return bundle, records


def fine_tune(
    family: Family, bundle: Bundle, data: CleanData, task: Task, teach: Teach, keeper: Keeper
) -> list[EpochRecord]:
    """Train the teacher on true labels, in place; one record an epoch."""
    model, tokenizer = bundle.model, bundle.tokenizer
    encoded = family.encode(tokenizer, data.train.texts, task.max_length)
    checked = family.encode(tokenizer, data.validation.texts, task.max_length)
    labels = torch.tensor(data.train.labels)

    def objective(piece: Piece, _: np.random.Generator) -> Tensor:
        outputs = family.forward(model, family.collate(tokenizer, [encoded[index] for index in piece.texts]))
        return piece.share * torch.nn.functional.cross_entropy(
            outputs.logits.float(), labels[piece.texts], label_smoothing=teach.label_smoothing
        )

    def validate() -> Score:
        return score(family, model, tokenizer, checked, data.validation.labels)

    settings, lengths = teach.training, [len(row) for row in encoded]
    with compact_embeddings(model, [*encoded, *checked]):
        return train(
            model,
            lengths,
            objective,
            validate,
            settings,
            seed=task.seed,
            phase="teach",
            epochs=settings.epochs,
            keeper=keeper,
        )
