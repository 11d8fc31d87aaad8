"""A tagger's answer as a person reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.techniques.span_metrics import spans_of


def told_spans(text: str, tags: Sequence[str]) -> str:
    """The spans of a tagged text: `PER: Anna Meier; LOC: Bonn`. Words beyond the tags are in none."""
    words = text.split()
    return told((kind, " ".join(words[first : last + 1])) for kind, first, last in spans_of(tags))


def told(spans: Iterable[tuple[str, str]]) -> str:
    """Spans of (kind, text)."""
    return "; ".join(f"{kind}: {text}" for kind, text in spans)
