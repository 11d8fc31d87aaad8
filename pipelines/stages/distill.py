"""Stage `distill`: a smaller student learns from the stored signals."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines import ranks
from pipelines.bundle import CONTROL, WITHOUT_LAYERS, Bundle, extend_lineage
from pipelines.config import (
    Distill,
    ElasticTokens,
    FreshStudent,
    Losses,
    OnPolicy,
    OtherStudent,
    PartWithoutLayers,
    ScratchStudent,
    StudentElastic,
    StudentLayers,
    StudentPretrained,
    StudentStatic,
    Task,
    TokenDistill,
)
from pipelines.curves import write_curve
from pipelines.data.clean import CleanData, load_clean
from pipelines.errors import ModelError
from pipelines.families import family_of, save_bundle_of, sequence_family_of
from pipelines.families.base import Family
from pipelines.families.context import check_context
from pipelines.families.sequences import Example, SequenceFamily
from pipelines.reproducible import fix_randomness
from pipelines.sequences.lessons import lesson_from_labels
from pipelines.signals import read_signals
from pipelines.sources import fetch_pretrained
from pipelines.stages import Output
from pipelines.techniques import token_elastic
from pipelines.techniques.course import EpochRecord, Keeper
from pipelines.techniques.distilling import learn
from pipelines.techniques.elastic import elastic_student, learn_elastic, learn_whole, sort_units
from pipelines.techniques.lessons import Lesson, lesson_from
from pipelines.techniques.levers import Gain, copies_of, facts_of, measure_levers
from pipelines.techniques.slicing import with_layers_alone
from pipelines.techniques.token_learning import TRUE_CLASSES, TokenLesson, learn_tokens
from pipelines.techniques.vocabulary.choices import cuts_of
from pipelines.token_signals import TokenSignals


def distill(
    clean: Path,
    signals: Path,
    teacher: Path,
    student: Output,
    curve: Output,
    task: Task,
    distill: Distill | TokenDistill,
    keeper: Keeper,
) -> None:
    """Write the student's bundle and its loss curve; where the recipe asks for it, the same student taught by data alone, or a part without layers.

    Raises ModelError where student and signals do not fit, DataError where the signals are damaged.
    """
    fix_randomness(task)
    data = load_clean(clean)
    gains: list[Gain] = []
    if isinstance(distill, TokenDistill):
        bundle, beside, records = _distill_sequences(data, signals, teacher, task, distill, keeper)
        name, stage = CONTROL, "control"
    else:
        lesson = lesson_from(data, read_signals(signals))
        bundle, beside, records, gains = _distill_classifier(data, lesson, teacher, task, distill, keeper)
        name, stage = WITHOUT_LAYERS, "distill"
    facts = {"params": distill.model_dump(), "levers": facts_of(gains)} | ranks.facts()
    bundle.lineage = extend_lineage(bundle.lineage, "distill", facts)
    save_bundle_of(task, bundle, student)
    if beside is not None:
        beside.lineage = extend_lineage(beside.lineage, stage, facts)
        save_bundle_of(task, beside, student / name)
    write_curve(curve, records)


def _distill_classifier(
    data: CleanData, lesson: Lesson, teacher: Path, task: Task, wanted: Distill, keeper: Keeper
) -> tuple[Bundle, Bundle | None, list[EpochRecord], list[Gain]]:
    """The student, what an elastic one has beside it, the records and the levers' gains."""
    family = family_of(task)
    choice, taught = wanted.student, family.load(teacher)
    if isinstance(choice, StudentPretrained):
        bundle = family.adopt(taught, choice, fetch_pretrained(choice.source, choice.sha256))
    elif isinstance(choice, StudentElastic):
        bundle = family.student(taught, StudentLayers(kind="layers", layers=choice.layers[0]))
    else:
        bundle = family.student(taught, choice)
    check_context(bundle.model, task, "the student")
    gains = _try_levers(family, taught, bundle, data, lesson, task, wanted, keeper)
    lesson = lesson.without([gain.lever for gain in gains if not gain.helps])
    if isinstance(choice, StudentElastic):
        records = _distill_elastic(bundle, data, lesson, task, wanted, choice, keeper)
        alone, more = _distill_without_layers(taught, data, lesson, task, wanted.losses, choice.without_layers, keeper)
        return bundle, alone, records + more, gains
    records = learn(
        family,
        bundle,
        lesson,
        data.validation,
        wanted.losses,
        wanted.training,
        max_length=task.max_length,
        seed=task.seed,
        phase="distill",
        epochs=wanted.training.epochs,
        keeper=keeper,
    )
    return bundle, None, records, gains


def _distill_without_layers(
    teacher: Bundle,
    data: CleanData,
    lesson: Lesson,
    task: Task,
    losses: Losses,
    wanted: PartWithoutLayers | None,
    keeper: Keeper,
) -> tuple[Bundle | None, list[EpochRecord]]:
    """The part of an elastic student that has no layers, where it is wanted: it has no lesson but the logits."""
    if wanted is None:
        return None, []
    family, settings = family_of(task), wanted.training
    bundle = family.student(teacher, StudentStatic(kind="static", hidden_size=wanted.hidden_size))
    records = learn(
        family,
        bundle,
        lesson,
        data.validation,
        losses.of_logits,
        settings,
        max_length=task.max_length,
        seed=task.seed,
        phase="without layers",
        epochs=settings.epochs,
        keeper=keeper,
    )
    return bundle, records


def _try_levers(
    family: Family,
    teacher: Bundle,
    student: Bundle,
    data: CleanData,
    lesson: Lesson,
    task: Task,
    wanted: Distill,
    keeper: Keeper,
) -> list[Gain]:
    """The measured gain of each lever where the recipe asks for it; of an elastic student, on its least depth alone."""
    if wanted.trial is None or not lesson.levers:
        return []
    choice, losses = wanted.student, wanted.losses
    if isinstance(choice, StudentElastic):
        student = family.student(teacher, StudentLayers(kind="layers", layers=choice.layers[-1]))
        losses = losses.of_logits
    fresh = copies_of(student)
    return measure_levers(family, fresh, lesson, data.validation, losses, wanted.training, wanted.trial, task, keeper)


def _distill_elastic(
    bundle: Bundle,
    data: CleanData,
    lesson: Lesson,
    task: Task,
    wanted: Distill,
    choice: StudentElastic,
    keeper: Keeper,
) -> list[EpochRecord]:
    family = family_of(task)
    family.trim_positions(bundle.model, task.max_length)
    cuts = cuts_of(family, bundle, data.written, choice.vocabularies, task.max_length)
    elastic = elastic_student(
        family,
        bundle,
        choice,
        cuts,
        lesson,
        data.validation,
        wanted.losses,
        max_length=task.max_length,
        folds=wanted.training.vocabulary_folds,
        seed=task.seed,
    )
    sample = np.random.default_rng(task.seed).permutation(len(lesson.texts))[: choice.calibration_rows]
    records = learn_whole(elastic, wanted.losses, wanted.training, seed=task.seed, keeper=keeper)
    sort_units(elastic, wanted.losses, sample, wanted.training.batch_size)
    return records + learn_elastic(elastic, wanted.losses, wanted.training, seed=task.seed, keeper=keeper)


def _distill_sequences(
    data: CleanData, signals: Path, teacher: Path, task: Task, wanted: TokenDistill, keeper: Keeper
) -> tuple[Bundle, Bundle | None, list[EpochRecord]]:
    family = sequence_family_of(task)
    taught = family.load(teacher)
    bundle = _student(family, taught, data, task, wanted)
    check_context(bundle.model, task, "the student")
    lesson = lesson_from_labels(signals, family, bundle, data.train, task, wanted.losses, "distill")
    checked = family.examples(bundle, data.validation, task.max_length)
    if isinstance(wanted.student, ElasticTokens):
        return (
            bundle,
            None,
            _distill_elastic_tokens(family, bundle, lesson, checked, task, wanted, wanted.student, keeper),
        )
    control = copy.deepcopy(bundle) if wanted.control else None
    settings, epochs = wanted.training, wanted.training.epochs
    own = _own_texts(wanted.on_policy, taught, lesson)
    records = learn_tokens(
        family,
        bundle,
        lesson,
        checked,
        wanted.losses,
        settings,
        seed=task.seed,
        phase="distill",
        epochs=epochs,
        keeper=keeper,
        own=own,
    )
    if control is not None:
        alone = TokenLesson(family.examples(bundle, data.train, task.max_length), None)
        records += learn_tokens(
            family,
            control,
            alone,
            checked,
            TRUE_CLASSES,
            settings,
            seed=task.seed,
            phase="control",
            epochs=epochs,
            keeper=keeper,
        )
    return bundle, control, records


def _distill_elastic_tokens(
    family: SequenceFamily,
    bundle: Bundle,
    lesson: TokenLesson,
    checked: Sequence[Example],
    task: Task,
    wanted: TokenDistill,
    choice: ElasticTokens,
    keeper: Keeper,
) -> list[EpochRecord]:
    elastic = token_elastic.token_elastic(family, bundle, choice, lesson, checked)
    sample = np.random.default_rng(task.seed).permutation(len(lesson.examples))[: choice.calibration_rows]
    records = token_elastic.learn_whole(elastic, wanted.losses, wanted.training, seed=task.seed, keeper=keeper)
    token_elastic.sort_units(elastic, wanted.losses, sample, wanted.training.batch_size)
    return records + token_elastic.learn_elastic(elastic, wanted.losses, wanted.training, seed=task.seed, keeper=keeper)


def _own_texts(wanted: OnPolicy | None, teacher: Bundle, lesson: TokenLesson) -> tuple[OnPolicy, Bundle] | None:
    """The student's own texts are scored in its tokens, so these must be the teacher's."""
    if wanted is None:
        return None
    if not isinstance(lesson.signals, TokenSignals):
        raise ModelError(
            "distill.on_policy: the teacher cannot score texts in tokens that are not its own; set it to null, or give the student its tokenizer"
        )
    return wanted, teacher


def _student(family: SequenceFamily, teacher: Bundle, data: CleanData, task: Task, wanted: TokenDistill) -> Bundle:
    choice = wanted.student
    if isinstance(choice, FreshStudent):
        return family.resized(teacher, choice)
    if isinstance(choice, ScratchStudent):
        bundle = family.fresh(choice, data, task.max_length)
        return Bundle(bundle.model, bundle.tokenizer, teacher.lineage)
    if isinstance(choice, OtherStudent):
        trusted = choice.trust_remote_code.files if choice.trust_remote_code is not None else None
        bundle = family.load_pretrained(fetch_pretrained(choice.source, choice.sha256, trusted or ()), data, trusted)
        return Bundle(bundle.model, bundle.tokenizer, teacher.lineage)
    layers = choice.layers[0] if isinstance(choice, ElasticTokens) else choice.layers
    return Bundle(with_layers_alone(teacher.model, layers), teacher.tokenizer, teacher.lineage)
