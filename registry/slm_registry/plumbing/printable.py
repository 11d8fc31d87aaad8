"""What may be printed: text of others without what a terminal would obey, addresses without their secrets."""

from __future__ import annotations

import re
import unicodedata

_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]*\]|[^:\[\]]*)(:[0-9]*)?")


def clean(text: str) -> str:
    """Text on one line; what a terminal would obey (escapes, line ends, changes of direction) is a question mark."""
    if text.isprintable():
        return text
    # Wide and unbreakable spaces count as not printable, and do no harm.
    return "".join(letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else "?" for letter in text)


def clean_lines(text: str) -> str:
    """Text of many lines, each as `clean` leaves it but for its tabs."""
    return "\n".join("\t".join(map(clean, line.split("\t"))) for line in text.split("\n"))


def address(url: str) -> str:
    """An address as far as its host, whether it is a good one or not: a password, or a token in the rest, is left out."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    # A password may hold a slash: then this is a user and the password's beginning.
    return clean(f"{scheme}{mark}{host if _HOST.fullmatch(host) else '...'}"[:80])


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 model, 2 models; `plural` where an s does not make it."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def size_text(size: int) -> str:
    """A size in bytes, as people read it."""
    if size < 1000:
        return f"{size} B"
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number >= 1000:
            number, unit = number / 1000, larger
    return f"{number:.1f} {unit}"
