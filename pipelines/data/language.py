"""Which language a text is in, by a model that ships inside its package (py3langid) and needs no network."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.data.checks import Found, Rows


def other_language(rows: Rows, expected: str, confidence: float) -> Found:
    """Texts that are in a language other than the expected one with at least this confidence.

    Raises DataError where the detector does not know the expected language.
    """
    found: Found = {}
    detected = detect([row.text or "" for row in rows.values()], expected)
    for i, (language, sure) in zip(rows, detected, strict=True):
        if language != expected and sure >= confidence:
            found[i] = f"seems to be {language!r} (confidence {sure:.2f})"
    return found


def detect(texts: Sequence[str], expected: str | None) -> list[tuple[str, float]]:
    """ISO 639-1 code and probability of every text's likeliest language; DataError where `expected` is unknown."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    from pipelines.errors import DataError

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    known = sorted(identifier.labels)
    if expected is not None and expected not in known:
        raise DataError(
            f"checks.language.expected: {expected!r} is unknown to the detector; it knows {', '.join(known)}"
        )
    return [(str(language), float(sure)) for language, sure in map(identifier.classify, texts)]
