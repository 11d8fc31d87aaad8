"""The checks, as pure functions: rows by number in, the numbers of the offending ones out, each with its reason.

They look for what no built-in expectation can see (other rows, other splits, encodings, languages); expectations.py
puts what they find before Great Expectations, which gives the verdict.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from pipelines.data.near import near_matches
from pipelines.data.rows import SPLITS, UNLABELLED, Row, shortened

Rows = Mapping[int, Row]
Found = dict[int, str]

#: Splits whose texts must not stand in a given one: test is never touched for a leak.
LEAKS = {"validation": ("test",), "train": ("validation", "test"), UNLABELLED: ("validation", "test")}

DAMAGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
#: What Windows-1252 makes of bytes 0x80 to 0xff; the five it leaves undefined stay C1 control characters.
HIGH = bytes(range(0x80, 0x100))
SLOPPY = {HIGH[i : i + 1].decode("cp1252", "ignore") or chr(0x80 + i): 0x80 + i for i in range(len(HIGH))}
SLOPPY |= {chr(byte): byte for byte in HIGH}
RUN = re.compile(f"[{''.join(map(re.escape, SLOPPY))}]{{2,}}")
#: What one damaged pair may stand for: accents and signs of Latin text. Others (É’ for ɒ) are more likely real text.
COMMON = re.compile("[\u00a0-\u017f]")
#: What longer runs may stand for: signs and scripts in wide use. Others (à, no-break space, » for U+083B) are text.
PLAUSIBLE = re.compile(
    "[\u00a0-\u024f\u0370-\u04ff\u0590-\u06ff\u0900-\u0eff\u1e00-\u1eff\u2010-\u2044\u20a0-\u20bf\u2122\u2190-\u21ff"
    "\u2500-\u27bf\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7af\ufe0f\uff00-\uffef\U0001f300-\U0001faff]+"
)


def same(text: str) -> str:
    """What counts as the same text: composed alike, white space squeezed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


# --- one row at a time ------------------------------------------------------------------------------------------------


def empty_text(rows: Rows) -> Found:
    """Texts that are missing or hold only white space."""
    return {i: "no text" for i, row in rows.items() if row.text is None or not row.text.strip()}


def long_text(rows: Rows, max_chars: int) -> Found:
    """Texts of more characters than allowed."""
    long = {i: len(row.text or "") for i, row in rows.items()}
    return {i: f"{length} characters, {max_chars} are allowed" for i, length in long.items() if length > max_chars}


def is_nan(label: str) -> bool:
    """Whether a label is the word that a data frame writes for a missing one."""
    return label.strip().lower() == "nan"


def missing_label(rows: Rows) -> Found:
    """Labels that are missing, white space, or the word that a data frame writes for a missing one."""
    found = {i: "no label" for i, row in rows.items() if row.label is None or not row.label.strip()}
    nan = {i: "the label is NaN" for i, row in rows.items() if row.label is not None and is_nan(row.label)}
    return {i: reason for i, reason in (found | nan).items() if rows[i].split != UNLABELLED}


def missing_target(rows: Rows) -> Found:
    """Answers that are missing or hold only white space."""
    return {i: "no answer" for i, row in rows.items() if row.label is None or not row.label.strip()}


def misaligned_tags(rows: Rows) -> Found:
    """Rows that have not one tag for each word."""
    counts = {i: (len((row.text or "").split()), len((row.label or "").split())) for i, row in rows.items()}
    return {i: f"{words} words, {tags} tags" for i, (words, tags) in counts.items() if words != tags}


def forbidden_label(rows: Rows, allowed: Iterable[str]) -> Found:
    """Labels outside the recipe's complete set."""
    known = set(allowed)
    labelled = {i: row.label for i, row in rows.items() if row.label is not None}
    return {i: f"label {label!r} is not in label_set.allowed" for i, label in labelled.items() if label not in known}


def encoding_damage(rows: Rows) -> Found:
    """Texts with replacement or control characters, or with UTF-8 that was read as Latin-1 or Windows-1252."""
    found: Found = {}
    for i, row in rows.items():
        text = row.text or ""
        if text.isascii() and text.isprintable():
            continue
        if match := DAMAGE.search(text):
            found[i] = f"character U+{ord(match[0]):04X} at {match.start() + 1}"
        elif (garbled := mojibake(text)) is not None:
            found[i] = f"{garbled[0]!r} seems to be {garbled[1]!r} in another encoding"
    return found


def mojibake(text: str) -> tuple[str, str] | None:
    """The first run of characters that turns into fewer, likely ones when written as Windows-1252 and read as UTF-8."""
    for match in RUN.finditer(text):
        try:
            meant = bytes(SLOPPY[letter] for letter in match[0]).decode("utf-8")
        except UnicodeDecodeError:
            continue
        likely = COMMON if len(match[0]) == 2 else PLAUSIBLE
        if likely.fullmatch(meant):
            return match[0], meant
    return None


# --- rows among rows --------------------------------------------------------------------------------------------------


def conflicting_labels(rows: Rows) -> Found:
    """Every row of a text that stands under more than one label, in whichever splits."""
    by_text: dict[str, dict[str, int]] = defaultdict(dict)
    labelled = {i: (same(row.text or ""), row.label) for i, row in rows.items() if row.label is not None}
    for i, (text, label) in labelled.items():
        by_text[text].setdefault(label, i)
    found: Found = {}
    for i, (text, label) in labelled.items():
        others = {other: first for other, first in by_text[text].items() if other != label}
        if others:
            other, first = next(iter(others.items()))
            found[i] = f"the same text stands under {other!r} in {rows[first].place}"
    return found


def duplicates(rows: Rows) -> Found:
    """Rows that repeat an earlier one of their split, and unlabelled texts that stand in train with a label."""
    first: dict[tuple[str, str, str | None], int] = {}
    train = _places(rows, ("train",))
    found: Found = {}
    for i, row in rows.items():
        text = same(row.text or "")
        earlier = first.setdefault((row.split, text, row.label), i)
        if earlier != i:
            found[i] = f"repeats {rows[earlier].place}"
        elif row.split == UNLABELLED and text in train:
            found[i] = f"stands with a label in {rows[train[text]].place}"
    return found


def _places(rows: Rows, splits: Collection[str]) -> dict[str, int]:
    """The first row of every text in these splits."""
    first: dict[str, int] = {}
    for i, row in rows.items():
        if row.split in splits:
            first.setdefault(same(row.text or ""), i)
    return first


def leakage_exact(rows: Rows) -> Found:
    """Texts of train that stand in validation or test, and texts of validation that stand in test."""
    found: Found = {}
    for split, others in LEAKS.items():
        # Without the validation rows just found: the reason is to name a row that stays.
        held = _places({i: row for i, row in rows.items() if i not in found}, others)
        for i, row in rows.items():
            if row.split == split and (match := held.get(same(row.text or ""))) is not None:
                found[i] = f"stands in {rows[match].split} too: {rows[match].place}"
    return found


def leakage_near(rows: Rows, similarity: float) -> Found:
    """Texts of train that are near-duplicates of one in validation or test, and of validation in test."""
    found: Found = {}
    for split, others in LEAKS.items():
        mine = [i for i, row in rows.items() if row.split == split]
        # A validation row found to leak leaves validation, so it is no reason to drop a training row.
        held = [i for i, row in rows.items() if row.split in others and i not in found]
        matches = near_matches([rows[i].text or "" for i in mine], [rows[i].text or "" for i in held], similarity)
        for i, match in zip(mine, matches, strict=True):
            if match is not None:
                other = rows[held[match]]
                found[i] = f"almost stands in {other.split}: {other.place} {shortened(other.text)}"
    return found


# --- classes ----------------------------------------------------------------------------------------------------------


def too_few_to_cut(rows: Rows, groups: Mapping[int, int], splits: int) -> Found:
    """Rows of classes with fewer groups of near-duplicates than there are splits to cut."""
    apart: dict[str | None, set[int]] = defaultdict(set)
    for i, group in groups.items():
        apart[rows[i].label].add(group)
    need = f"{splits} splits need at least {splits}"
    return {
        i: f"class {rows[i].label!r} has {len(apart[rows[i].label])} row(s) that are not near-duplicates; {need}"
        for i in groups
        if len(apart[rows[i].label]) < splits
    }


def unknown_label(rows: Rows) -> Found:
    """Rows of validation and test whose label train lacks."""
    known = {row.label for row in rows.values() if row.split == "train"}
    held = {i: row.label for i, row in rows.items() if row.split in ("validation", "test")}
    return {i: f"no training row has the label {label!r}" for i, label in held.items() if label not in known}


def small_class(rows: Rows, min_rows: int) -> Found:
    """Rows, in every split, of classes with too few training rows."""
    counts = Counter(row.label for row in rows.values() if row.split == "train")
    return {
        i: f"class {row.label!r} has {counts[row.label]} training row(s), {min_rows} are needed"
        for i, row in rows.items()
        if row.split in SPLITS and counts[row.label] < min_rows
    }
