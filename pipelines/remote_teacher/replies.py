"""What an endpoint says: the body of a reply, checked before any of it is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

#: `finish_reason`s of answers that the model did not end itself.
CUT = frozenset({"length", "max_tokens", "content_filter"})

Flaw = Literal["empty", "cut"]


class NotAReply(ValueError):
    """A body that is not what the protocol says."""


@dataclass(frozen=True)
class Reply:
    """One answer. The tokens are the endpoint's count, None where it gives none."""

    text: str
    finish: str | None
    served: str | None
    input_tokens: int | None
    output_tokens: int | None


def flaw_of(text: str, finish: str | None) -> Flaw | None:
    """What is wrong with an answer, if anything."""
    if not text.strip():
        return "empty"
    return "cut" if finish in CUT else None


def parse_reply(body: bytes, hidden: Callable[[str], str]) -> Reply:
    """The first choice of a chat or completions reply. `hidden` takes secrets out of all but the text. Raises NotAReply."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotAReply(f"not JSON, {len(body)} bytes") from error
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NotAReply(f"without choices{_said(value, hidden)}")
    usage = value.get("usage")
    return Reply(
        text=_text(choices[0]),
        finish=_name(choices[0].get("finish_reason"), hidden),
        served=_name(value.get("model"), hidden),
        input_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
    )


def error_message(body: bytes, hidden: Callable[[str], str]) -> str:
    """What a refusal's body says, one line, at most 200 characters; empty where it says nothing readable."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return _said(value, hidden)


def _said(value: Any, hidden: Callable[[str], str]) -> str:
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return f": {' '.join(hidden(message).split())[:200]!r}" if isinstance(message, str) and message else ""


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text", message)
    if text is None and isinstance(message, dict):
        return ""  # a refusal, or a call of a tool: an answer without text
    if not isinstance(text, str):
        raise NotAReply(f"with a {type(text).__name__} in place of an answer's text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotAReply("with half a surrogate pair in its text") from error
    return text


def _name(value: Any, hidden: Callable[[str], str]) -> str | None:
    return hidden(value).encode("utf-8", "replace").decode()[:200] if isinstance(value, str) else None


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None
