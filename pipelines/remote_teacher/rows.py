"""From stored answers to training rows: what `teach` leaves of a remote teacher, and what its learner is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.bundle import ANSWERS, REMOTE, read_json, write_json
from pipelines.config import ApiTeacher
from pipelines.data.clean import Split
from pipelines.errors import DataError, ModelError, RecipeError
from pipelines.remote_teacher.collecting import collect, policy_on
from pipelines.remote_teacher.patience import Clock
from pipelines.remote_teacher.questions import Question, identity_of, questions, read_prompt, sha256_of_text
from pipelines.remote_teacher.replies import Flaw, flaw_of
from pipelines.remote_teacher.store import Answer, AnswerStore


@dataclass(frozen=True)
class _Chosen:
    question: Question
    answer: Answer
    flaw: Flaw | None


def ask_teacher(teacher: ApiTeacher, split: Split, root: Path, out: Path, clock: Clock | None = None) -> dict[str, Any]:
    """Ask for every answer that the recipe wants and the store lacks, and write `out`: answers.json and remote.json.

    Paths of the recipe are relative to `root`. Returns the record, which holds no time and no cost of failed tries: same
    answers, same bytes. Raises RecipeError, ModelError and TransientError as `collect`, DataError for a damaged store.
    """
    _require_texts(split)
    asked = questions(teacher, read_prompt(teacher, root), split.texts)
    with AnswerStore(root / teacher.store, identity_of(teacher)) as store:
        collect(teacher, asked, store, Clock() if clock is None else clock)
        found = [(question, store.get(question.key)) for question in asked]
    chosen = [_Chosen(one, answer, flaw_of(answer.text, answer.finish)) for one, answer in found if answer is not None]
    kept = [one for one in chosen if one.flaw is None or policy_on(one.flaw, teacher) == "keep"]
    if not kept:
        raise ModelError(
            f"{teacher.url}: of {len(chosen)} answers none is left ({_tally(one.flaw for one in chosen if one.flaw)}); mend the prompt or teach.sampling"
        )
    return _write(out, teacher, split, chosen, kept)


def answers(folder: Path, split: Split) -> Split:
    """The training rows that a remote teacher's answers make of these: targets where there are targets, else texts.

    A text comes once for each of its answers, and not at all where none was kept. Raises DataError where the answers are
    those of other rows.
    """
    _require_texts(split)
    stored = read_json(folder / ANSWERS)
    missing = next((row for row, text in enumerate(split.texts) if sha256_of_text(text) not in stored), None)
    if missing is not None:
        raise DataError(f"{folder / ANSWERS}: knows nothing of training row {missing}; run the stage `teach` again")
    pairs = [(text, answer.strip()) for text in dict.fromkeys(split.texts) for answer in stored[sha256_of_text(text)]]
    if split.targets:
        return Split([text for text, _ in pairs], targets=[answer for _, answer in pairs])
    return Split([answer for _, answer in pairs])


def _require_texts(split: Split) -> None:
    if split.labels:
        raise RecipeError("teach.mode: api answers with texts; a classifier's labels need another teacher")


def _write(
    out: Path, teacher: ApiTeacher, split: Split, chosen: Sequence[_Chosen], kept: Sequence[_Chosen]
) -> dict[str, Any]:
    by_text: dict[str, list[str]] = {sha256_of_text(text): [] for text in split.texts}
    for one in kept:
        by_text[one.question.text_sha256].append(one.answer.text)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / ANSWERS, by_text)
    record = identity_of(teacher) | {
        "url": teacher.url,
        "prompt_file": teacher.prompt_file,
        "answers_a_row": teacher.sampling.answers,
        "rows": len(by_text),
        "rows_without_answer": sum(not texts for texts in by_text.values()),
        "answers": len(kept),
        "flaws": _tally(one.flaw for one in chosen if one.flaw),
        "served": _tally(one.answer.served or "(not said)" for one in chosen),
        "input_tokens": sum(one.answer.input_tokens for one in chosen),
        "output_tokens": sum(one.answer.output_tokens for one in chosen),
        "estimated_counts": sum(one.answer.counted == "estimate" for one in chosen),
        "cost": round(sum(one.answer.cost for one in chosen), 9),
    }
    write_json(out / REMOTE, record)
    return record


def _tally(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
