"""Text out of tokens as they come: nothing is handed out that a later token could change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slm_registry.runtime.parts import tokenizing

# What stands for bytes that are no character, or not yet one.
_UNFINISHED = "\ufffd"
# A character has at most four bytes, and a decoder may take back what stands before it in the window: no more waits.
_MOST_WAITING = 8
_CONTEXT = 8


class Detokenizer:
    """The text that tokens add to the text of `context`.

    Each token is decoded together with those before it, since a space or a part of a character hangs on them. The bytes
    of a character that is spread over tokens wait until it is whole.
    """

    def __init__(self, tokenizer: Any, context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._window = self._tail(context)
        self._begun = len(self._window)
        self._sent = len(self._decode(self._window))

    def push(self, token: int) -> str:
        """What is certain now and was not before."""
        self._window.append(token)
        text = self._decode(self._window)
        certain = text.rstrip(_UNFINISHED)
        if len(text) - len(certain) > _MOST_WAITING + self._begun:
            certain = text
        fresh = certain[self._sent :]
        self._sent = max(self._sent, len(certain))
        if certain == text:
            self._move()
        return fresh

    def flush(self) -> str:
        """What waits at the end."""
        fresh = self._decode(self._window)[self._sent :]
        self._sent += len(fresh)
        return fresh

    def _move(self) -> None:
        """Forget tokens that nothing depends on any more."""
        last = self._window[self._begun :]
        length = len(self._decode(last))
        if length:
            self._window, self._sent = last, length
        self._begun = len(self._window)

    def _tail(self, context: Sequence[int]) -> list[int]:
        """As few of the last tokens as decode to whole characters."""
        size = _CONTEXT
        while size < len(context) and _UNFINISHED in self._decode(context[-size:]):
            size *= 2
        return list(context[-size:])

    def _decode(self, tokens: Sequence[int]) -> str:
        with tokenizing("the tokenizer cannot decode what the model wrote"):
            return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))


class StopStrings:
    """Passes text on up to the first of some strings. What may be the beginning of one waits."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may go out, and whether a string was found: then there is no more."""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        end = min(places) if places else len(self._held) - self._waiting()
        out, self._held = self._held[:end], self._held[end:]
        return out, bool(places)

    def flush(self) -> str:
        """What waited, and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held

    def _waiting(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
