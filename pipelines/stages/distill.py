"""Stage `distill`: a smaller student learns from the stored signals."""

from __future__ import annotations

import copy
from pathlib import Path

from pipelines.bundle import CONTROL, Bundle, extend_lineage
from pipelines.config import (
    Distill,
    FreshStudent,
    OtherStudent,
    StudentPretrained,
    Task,
    TokenDistill,
)
from pipelines.curves import write_curve
from pipelines.data.clean import CleanData, load_clean
from pipelines.families import family_of, save_bundle_of, sequence_family_of
from pipelines.families.context import check_context
from pipelines.families.sequences import SequenceFamily
from pipelines.reproducible import fix_randomness
from pipelines.sequences.labelling import read_labels
from pipelines.signals import read_signals
from pipelines.sources import fetch_pretrained
from pipelines.stages import Output
from pipelines.techniques.across_tokenizers import vocabularies_agree
from pipelines.techniques.distilling import learn, lesson_from
from pipelines.techniques.slicing import with_layers_alone
from pipelines.techniques.token_learning import TRUE_CLASSES, TokenLesson, learn_tokens
from pipelines.techniques.training import EpochRecord


def distill(
    clean: Path,
    signals: Path,
    teacher: Path,
    student: Output,
    curve: Output,
    task: Task,
    distill: Distill | TokenDistill,
) -> None:
    """Write the student's bundle and its loss curve; where the recipe asks for it, the same student taught by data alone.

    Raises ModelError where student and signals do not fit, DataError where the signals are damaged.
    """
    fix_randomness(task)
    data = load_clean(clean)
    if isinstance(distill, TokenDistill):
        bundle, control, records = _distill_sequences(data, signals, teacher, task, distill)
    else:
        bundle, records = _distill_classifier(data, signals, teacher, task, distill)
        control = None
    facts = {"params": distill.model_dump()}
    bundle.lineage = extend_lineage(bundle.lineage, "distill", facts)
    save_bundle_of(task, bundle, student)
    if control is not None:
        control.lineage = extend_lineage(control.lineage, "control", facts)
        save_bundle_of(task, control, student / CONTROL)
    write_curve(curve, records)


def _distill_classifier(
    data: CleanData, signals: Path, teacher: Path, task: Task, wanted: Distill
) -> tuple[Bundle, list[EpochRecord]]:
    family = family_of(task)
    lesson = lesson_from(data, read_signals(signals))
    choice, taught = wanted.student, family.load(teacher)
    if isinstance(choice, StudentPretrained):
        bundle = family.adopt(taught, choice, fetch_pretrained(choice.source, choice.sha256))
    else:
        bundle = family.student(taught, choice)
    check_context(bundle.model, task, "the student")
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
    )
    return bundle, records


def _distill_sequences(
    data: CleanData, signals: Path, teacher: Path, task: Task, wanted: TokenDistill
) -> tuple[Bundle, Bundle | None, list[EpochRecord]]:
    family = sequence_family_of(task)
    taught = family.load(teacher)
    bundle = _student(family, taught, data, wanted)
    check_context(bundle.model, task, "the student")
    vocabularies_agree(bundle.tokenizer, taught.tokenizer)
    given = family.examples(taught, data.train, task.max_length)
    checked = family.examples(taught, data.validation, task.max_length)
    control = copy.deepcopy(bundle) if wanted.control else None
    labelled = read_labels(signals, given)
    settings, epochs = wanted.training, wanted.training.epochs
    own = (wanted.on_policy, taught) if wanted.on_policy is not None else None
    lesson = TokenLesson(labelled.examples, labelled.signals)
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
        own=own,
    )
    if control is not None:
        alone = TokenLesson(given, None)
        records += learn_tokens(
            family, control, alone, checked, TRUE_CLASSES, settings, seed=task.seed, phase="control", epochs=epochs
        )
    return bundle, control, records


def _student(family: SequenceFamily, teacher: Bundle, data: CleanData, wanted: TokenDistill) -> Bundle:
    choice = wanted.student
    if isinstance(choice, FreshStudent):
        return family.resized(teacher, choice)
    if isinstance(choice, OtherStudent):
        trusted = choice.trust_remote_code.files if choice.trust_remote_code is not None else None
        bundle = family.load_pretrained(fetch_pretrained(choice.source, choice.sha256, trusted or ()), data, trusted)
        return Bundle(bundle.model, bundle.tokenizer, teacher.lineage)
    return Bundle(with_layers_alone(teacher.model, choice.layers), teacher.tokenizer, teacher.lineage)
