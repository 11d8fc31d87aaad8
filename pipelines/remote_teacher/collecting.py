"""Asking for what is missing, many questions at once, and keeping each answer before the next is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Literal

from pipelines.config import ApiTeacher
from pipelines.errors import FactoryError, ModelError, TransientError
from pipelines.progress import Progress
from pipelines.remote_teacher.budget import Budget, cost_of, estimated_cost, estimated_tokens
from pipelines.remote_teacher.endpoint import Endpoint, check_served
from pipelines.remote_teacher.key import Key
from pipelines.remote_teacher.patience import Clock, Failure, GivenUp, Pace, Stopped, persist
from pipelines.remote_teacher.questions import Question
from pipelines.remote_teacher.replies import Flaw, Reply, flaw_of
from pipelines.remote_teacher.store import Answer, AnswerStore


def collect(teacher: ApiTeacher, asked: Sequence[Question], store: AnswerStore, clock: Clock) -> None:
    """Bring the store's answers to these questions up to date.

    Raises RecipeError where the cap does not allow it or the key is missing, ModelError where the endpoint refuses or an
    answer is one that the recipe fails on, TransientError where the endpoint stays away. What came until then is stored.
    """
    for question in asked:
        stored = store.get(question.key)
        if stored is not None:
            check_answer(teacher, question, stored)
    missing = [question for question in asked if store.get(question.key) is None]
    budget = Budget(teacher, store.spent)
    estimate = budget.check(missing)
    if not missing:
        return
    with (
        Endpoint(teacher, Key(teacher.key_variable), clock) as endpoint,
        Progress("teach", len(asked)) as progress,
    ):
        progress.note(
            f"{len(missing)} of {len(asked)} answers to ask for, estimated at {estimate:.6g}; "
            f"{budget.spent:.6g} of {teacher.max_cost:g} is spent"
        )
        progress.advance(len(asked) - len(missing))
        _Collector(teacher, store, budget, endpoint, clock, progress).run(missing, len(asked))


class _Collector:
    """Threads that take questions from one list, until it is empty or one of them fails."""

    def __init__(
        self,
        teacher: ApiTeacher,
        store: AnswerStore,
        budget: Budget,
        endpoint: Endpoint,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self._teacher, self._store, self._budget, self._endpoint = teacher, store, budget, endpoint
        self._clock, self._progress = clock, progress
        self._pace, self._lock = Pace(teacher.requests_per_minute, clock), threading.Lock()
        self._left: Iterator[Question] = iter(())
        self._stored = 0

    def run(self, missing: Sequence[Question], total: int) -> None:
        """Ask all of them. The first failure ends the rest; requests under way are still answered and stored."""
        self._left, self._stored = iter(missing), total - len(missing)
        threads = min(self._teacher.parallel, len(missing))
        with ThreadPoolExecutor(threads) as pool:
            try:
                for worker in as_completed([pool.submit(self._work) for _ in range(threads)]):
                    worker.result()
            except BaseException as error:
                self._stop()
                pool.shutdown()
                if isinstance(error, FactoryError):
                    raise type(error)(f"{error}; {self._so_far(total)}") from error
                raise

    def _so_far(self, total: int) -> str:
        return (
            f"{self._stored} of {total} answers are stored in {self._store.path}: the same command goes on from there"
        )

    def _stop(self) -> None:
        self._clock.stop()
        self._budget.stop()

    def _work(self) -> None:
        try:
            while (question := self._next()) is not None:
                self._answer(question)
        except Stopped:
            return  # whoever stopped it says why
        except BaseException:
            self._stop()
            raise

    def _next(self) -> Question | None:
        with self._lock:
            return next(self._left, None)

    def _answer(self, question: Question) -> None:
        """Ask until there is an answer, store it, and judge it."""
        reserved = estimated_cost(self._teacher, question)

        def attempt() -> Reply:
            self._pace.wait()
            self._budget.reserve(reserved)
            try:
                return self._endpoint.ask(question)
            except Failure as failure:
                lost = reserved if failure.charged else 0.0
                if lost:
                    self._store.lose(question.key, lost)
                self._budget.settle(reserved, lost)
                raise
            except BaseException:
                self._budget.settle(reserved, 0.0)
                raise

        def failed(failure: Failure) -> None:
            if failure.after is not None:
                self._pace.hold(min(failure.after, self._teacher.retries.seconds))

        try:
            reply = persist(attempt, failed, self._teacher.retries, self._clock)
        except GivenUp as error:
            raise TransientError(str(error)) from error
        answer = answer_of(self._teacher, question, reply)
        self._store.append(answer)
        self._budget.settle(reserved, answer.cost)
        with self._lock:
            self._stored += 1
            self._progress.advance()
        check_answer(self._teacher, question, answer)


def answer_of(teacher: ApiTeacher, question: Question, reply: Reply) -> Answer:
    """A reply as it is kept, its cost by the endpoint's count of tokens, or by an estimate where it gives none."""
    given, written = reply.input_tokens, reply.output_tokens
    input_tokens = estimated_tokens(question.prompt) if given is None else given
    output_tokens = estimated_tokens(reply.text) if written is None else written
    return Answer(
        key=question.key,
        text_sha256=question.text_sha256,
        number=question.number,
        text=reply.text,
        finish=reply.finish,
        served=reply.served,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        counted="estimate" if given is None or written is None else "usage",
        cost=cost_of(teacher, input_tokens, output_tokens),
    )


def check_answer(teacher: ApiTeacher, question: Question, answer: Answer) -> None:
    """Raise ModelError where the recipe fails on such an answer."""
    check_served(teacher, answer.served)
    flaw = flaw_of(answer.text, answer.finish)
    if flaw is not None and policy_on(flaw, teacher) == "fail":
        because = f" (finish_reason {answer.finish!r})" if answer.finish else ""
        raise ModelError(
            f"teach.{flaw} is fail, and answer {question.number} to training row {question.row} is {flaw}{because}; "
            f"mend the prompt or teach.sampling.max_tokens, or set teach.{flaw} to drop"
        )


def policy_on(flaw: Flaw, teacher: ApiTeacher) -> Literal["drop", "keep", "fail"]:
    """What the recipe says of answers with this flaw."""
    return teacher.empty if flaw == "empty" else teacher.cut
