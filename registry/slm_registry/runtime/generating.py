"""What all models that write have in common: arguments, batches, streams."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slm_registry.errors import UsageError
from slm_registry.runtime.arguments import at_least_one, checked_texts
from slm_registry.runtime.decoding import Answer, Asked, Generation, Steps, write
from slm_registry.runtime.model import Model, Parts
from slm_registry.runtime.parts import read_json
from slm_registry.runtime.sampling import Sampling


class TextStream(Iterator[str]):
    """Pieces of a text as they become certain; together they are the text that `generate` gives."""

    def __init__(self, growth: Iterator[str], answer: Answer) -> None:
        self._growth, self._answer = growth, answer

    def __next__(self) -> str:
        return next(piece for piece in self._growth if piece)

    def steps(self) -> Iterator[str]:
        """What the text grew by with each token, empty where nothing is certain yet."""
        return self._growth

    @property
    def result(self) -> Generation:
        """The whole, once the last piece was taken. Raises UsageError before."""
        if self._answer.finished is None:
            raise UsageError("the text is not finished; take all of its pieces first")
        return self._answer.result()


class Generator(Model):
    """A model that writes text, token by token."""

    _ends: frozenset[int]

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        truncate: bool = False,
        batch_size: int | None = None,
    ) -> list[Generation]:
        """What the model writes for each prompt, in the order of the prompts; `batch_size` of them side by side.

        Temperature 0 takes the likeliest token each time; above it tokens are drawn, see `sampling.Sampling`. With a `seed`
        the draws of a prompt depend on it and on the prompt's place in the list alone. Writing ends at an end token, before
        a string of `stop`, after `max_new_tokens` or where the context is full. A prompt that is too long is a UsageError,
        with `truncate` it is cut. Raises InputTypeError for anything but texts, UsageError for numbers that cannot be meant
        and after `close`.
        """
        parts = self._opened()
        sampling = Sampling(
            temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty, seed=seed
        )
        asked = Asked(max_new_tokens, sampling, stop, truncate)
        batch_size = at_least_one("batch_size", self.batch_size if batch_size is None else batch_size)
        answers = self._answers(parts, prompts, asked)
        # Prompts of one length share a batch, so that little of it is padding.
        order = sorted(answers, key=lambda answer: len(answer.prompt))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for _ in write(self._steps(parts, [answer.prompt for answer in batch]), batch, sampling, self._ends):
                pass
        return [answer.result() for answer in answers]

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        truncate: bool = False,
    ) -> TextStream:
        """As `generate([prompt])`, piece by piece. No piece holds half a character, or part of a stop string."""
        parts = self._opened()
        sampling = Sampling(
            temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty, seed=seed
        )
        (answer,) = self._answers(parts, [prompt], Asked(max_new_tokens, sampling, stop, truncate))

        def growth() -> Iterator[str]:
            yield from write(self._steps(parts, [answer.prompt]), [answer], sampling, self._ends)

        return TextStream(growth(), answer)

    def try_out(self) -> None:
        self.generate(["a text to see that it answers"], max_new_tokens=2, truncate=True)

    def _answers(self, parts: Parts, prompts: Sequence[str], asked: Asked) -> list[Answer]:
        answers = []
        for place, text in enumerate(checked_texts(prompts)):
            ids = self._prompt(parts.tokenizer, place, text, asked)
            answer = Answer(place, ids, min(asked.max_new_tokens, self._room(ids)), asked)
            answer.begin(parts.tokenizer, self._context(ids))
            answers.append(answer)
        return answers

    @abc.abstractmethod
    def _prompt(self, tokenizer: Any, place: int, text: str, asked: Asked) -> list[int]:
        """Tokens of the prompt at a place of the list. Raises UsageError where it is too long."""

    @abc.abstractmethod
    def _room(self, prompt: Sequence[int]) -> int:
        """How many tokens the context has left."""

    @abc.abstractmethod
    def _context(self, prompt: Sequence[int]) -> Sequence[int]:
        """What the text goes on from."""

    @abc.abstractmethod
    def _steps(self, parts: Parts, prompts: Sequence[Sequence[int]]) -> Steps:
        """The model, ready to write on from these."""


def generation_settings(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, and what generation_config.json says instead."""
    own = read_json(folder / "generation_config.json", missing={})
    return {**config, **{name: value for name, value in own.items() if value is not None}}


def special_ids(settings: Mapping[str, Any], name: str) -> list[int]:
    """A setting that names a token, some tokens, or none. Raises UsageError for anything else."""
    value = settings.get(name)
    found = [] if value is None else value if isinstance(value, list) else [value]
    if any(type(token) is not int or not 0 <= token < 1 << 31 for token in found):
        raise UsageError(f"{name} is {str(value)[:40]!r}; it must be a token's number, a list of them, or null")
    return found
