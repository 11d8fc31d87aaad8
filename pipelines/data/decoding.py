"""From bytes to text: UTF-8 or one clear error that says where it stops being UTF-8 and what it looks like instead."""

from __future__ import annotations

from pipelines.data.rows import shortened
from pipelines.errors import DataError

#: First bytes of files that carry a wrong suffix, and what to do about each.
SIGNATURES = (
    (b"PAR1", "this is a Parquet file; name it *.parquet"),
    (b"PK\x03\x04", "this is a ZIP archive or an Excel workbook; unpack it, or export it as CSV in UTF-8"),
    (b"\x1f\x8b", "this is a gzip file; unpack it first"),
    (b"\xff\xfe", "this looks like UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "this looks like UTF-16; save it as UTF-8"),
)
SAMPLE = 1 << 16


def decode(raw: bytes, location: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises DataError for an empty, binary, differently encoded or mixed file.
    """
    if not raw:
        raise DataError(f"{location}: the file is empty; give one with a header and rows")
    for signature, remedy in SIGNATURES:
        if raw.startswith(signature):
            raise DataError(f"{location}: not text: {remedy}")
    nul = raw.find(b"\0")
    if nul >= 0:
        line = raw.count(b"\n", 0, nul) + 1
        raise DataError(
            f"{location}: line {line}, byte {nul}: a NUL byte, so this is a binary file; "
            "give CSV or JSONL in UTF-8, or Parquet"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `start` does not count the byte order mark, which the codec has taken off.
        offset = error.start + (3 if raw.startswith(b"\xef\xbb\xbf") else 0)
        raise DataError(_not_utf8(raw, offset, location)) from error


def _not_utf8(raw: bytes, offset: int, location: str) -> str:
    """Offset, line, likely encoding and remedy for the first byte that is not UTF-8."""
    number = raw.count(b"\n", 0, offset) + 1
    bad, good = _split_lines(raw)
    encoding = _likely_encoding(b"\n".join(bad))
    start = raw.rfind(b"\n", 0, offset) + 1
    end = raw.find(b"\n", offset)
    line = raw[start : end if end >= 0 else len(raw)]
    begin = f"{location}: line {number}, byte {offset} (0x{raw[offset]:02x}): not UTF-8"
    reads = f"as {encoding} the line reads {shortened(line.decode(encoding, errors='replace'))}" if encoding else ""
    if good:
        return (
            f"{begin}; the file mixes encodings: {len(bad)} line(s) are not UTF-8, {good} with accents or symbols are; "
            f"{reads or 'their encoding is unclear'}; save those lines as UTF-8"
        )
    if encoding is None:
        return f"{begin}, nor any other text encoding; give CSV or JSONL in UTF-8, or Parquet"
    return f"{begin}; it may be {encoding}: {reads}; convert the file with `iconv -f {encoding} -t utf-8`"


def _split_lines(raw: bytes) -> tuple[list[bytes], int]:
    """The lines that are not UTF-8, and how many non-ASCII lines are."""
    bad, good = [], 0
    for line in raw.split(b"\n"):
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
            good += 1
        except UnicodeDecodeError:
            bad.append(line)
    return bad, good


def _likely_encoding(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes

    # Short accents alone are guessed as rare code pages, so the two that nearly all such files use are asked first.
    match = from_bytes(
        sample[:SAMPLE], cp_isolation=["cp1252", "latin_1", "cp1251", "shift_jis", "gb18030", "euc_kr", "big5"]
    )
    best = match.best()
    return None if best is None else best.encoding
