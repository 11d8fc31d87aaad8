"""The loop that writes: one step of the model, one token a row, until every row has its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from slm_registry.errors import InputTypeError, UsageError
from slm_registry.runtime.arguments import at_least_one, checked_texts
from slm_registry.runtime.detokenizing import Detokenizer, StopStrings
from slm_registry.runtime.sampling import Sampling, choose

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Generation(NamedTuple):
    """What a model wrote, and why it ended.

    `finish_reason` is "end" (an end token, which is not among the tokens), "stop" (a stop string; the text ends before
    it, the tokens after it) or "length" (`max_new_tokens`, or the context is full).
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["end", "stop", "length"]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Asked:
    """How to write, whatever the prompt."""

    max_new_tokens: int
    sampling: Sampling
    stop: Sequence[str]
    truncate: bool

    def __post_init__(self) -> None:
        at_least_one("max_new_tokens", self.max_new_tokens)
        if isinstance(self.stop, str | bytes):
            raise InputTypeError(f"stop is one {type(self.stop).__name__}; write stop=[{self.stop!r}]")
        if "" in checked_texts(self.stop):
            raise UsageError("stop holds an empty string, which every text holds; leave it out")


class Steps(Protocol):
    """A model at work on a batch of rows. Scores are logits [B, V] of each row's next token."""

    def start(self) -> NDArray[np.float32]:
        """The scores after the prompts."""

    def next(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The scores after one more token a row."""

    def keep(self, live: Sequence[int]) -> None:
        """Go on with some of the rows alone."""


class Answer:
    """One row under way."""

    def __init__(self, place: int, prompt: Sequence[int], limit: int, asked: Asked) -> None:
        self.place, self.prompt, self.limit = place, prompt, limit
        self.generator = asked.sampling.generator(place)
        self.tokens: list[int] = []
        #: The prompt and what follows it.
        self.written = list(prompt)
        self.finished: Literal["end", "stop", "length"] | None = None
        self._stops = StopStrings(asked.stop)
        self._pieces: list[str] = []

    def begin(self, tokenizer: Any, context: Sequence[int]) -> None:
        """Decode what comes as the continuation of `context`."""
        self._text = Detokenizer(tokenizer, context)

    def take(self, token: int, ends: frozenset[int]) -> str:
        """Note the next token; the text that is certain now."""
        if token in ends:
            self.finished = "end"
            return self._piece(self._rest())
        self.tokens.append(token)
        self.written.append(token)
        piece, found = self._stops.push(self._text.push(token))
        if found:
            self.finished = "stop"
        elif len(self.tokens) >= self.limit:
            self.finished = "length"
            piece += self._rest()
        return self._piece(piece)

    def result(self) -> Generation:
        """What was written; to be asked when it is finished."""
        assert self.finished is not None
        return Generation("".join(self._pieces), tuple(self.tokens), self.finished, len(self.prompt))

    def _rest(self) -> str:
        """What waited. A stop string may end in it."""
        piece, found = self._stops.push(self._text.flush())
        if found:
            self.finished = "stop"
            return piece
        return piece + self._stops.flush()

    def _piece(self, piece: str) -> str:
        self._pieces.append(piece)
        return piece


def write(steps: Steps, answers: list[Answer], sampling: Sampling, ends: frozenset[int]) -> Iterator[str]:
    """Continue every answer to its end, a step at a time; after each yields what the first row's text grew by.

    A row that has its end leaves the batch.
    """
    first = answers[0]
    logits = steps.start()
    while True:
        tokens = choose(
            logits, sampling, [answer.written for answer in answers], [answer.generator for answer in answers]
        )
        pieces = [answer.take(token, ends) for answer, token in zip(answers, tokens, strict=True)]
        yield pieces[0] if answers[0] is first else ""
        live = [row for row, answer in enumerate(answers) if answer.finished is None]
        if not live:
            return
        if len(live) < len(answers):
            answers, tokens = [answers[row] for row in live], [tokens[row] for row in live]
            steps.keep(live)
        logits = steps.next(tokens)
