"""Text that others wrote, without what a terminal would obey."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Text on one line; what a terminal would obey (escapes, line ends, changes of direction) is a question mark."""
    if text.isprintable():
        return text
    # Wide and unbreakable spaces count as not printable, and do no harm.
    return "".join(letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else "?" for letter in text)


def clean_lines(text: str) -> str:
    """Text of many lines, each as `clean` leaves it but for its tabs."""
    return "\n".join("\t".join(map(clean, line.split("\t"))) for line in text.split("\n"))
