"""Bundles and the texts to time them with as one stream, for a machine that is reached by a pipe alone.

A tar of `<bundle>/<file>`, and as its last member `request.json`: {"folders": [bundle, ...], "texts": [text, ...]}.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from slm_registry import names
from slm_registry.errors import CorruptError, RefusedError, UsageError
from slm_registry.plumbing.files import open_regular, os_errors
from slm_registry.plumbing.jsonio import parse_object

REQUEST = "request.json"
_MAX_REQUEST = 64 << 20
_AGAIN = "it was cut short or is another's; send it again"


def pack(bundles: Mapping[str, Sequence[Path]], texts: Sequence[str], into: BinaryIO) -> None:
    """Write bundles, by name, with their files, and the texts. Raises OSError where a file cannot be read."""
    request = json.dumps({"folders": list(bundles), "texts": list(texts)}).encode()
    with tarfile.open(fileobj=into, mode="w|") as archive:
        for name, paths in bundles.items():
            for path in paths:
                # A link will do: a cache may have put it there.
                with path.open("rb") as file:
                    archive.addfile(_member(f"{name}/{path.name}", os.fstat(file.fileno()).st_size), file)
        archive.addfile(_member(REQUEST, len(request)), io.BytesIO(request))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def unpack(stream: BinaryIO, into: Path) -> tuple[list[Path], list[str]]:
    """The bundles' folders, written below a folder, and the texts.

    Raises RefusedError for a member that is no plain file with a plain name, CorruptError where the stream is no such tar
    or ends early.
    """
    seen: list[str] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                seen.append(_checked(member, seen))
                _write(archive, member, into / member.name)
    except (tarfile.TarError, ValueError) as error:
        raise CorruptError(f"standard input is no tar of bundles ({error}); {_AGAIN}") from error
    if not seen or seen[-1] != REQUEST:
        raise CorruptError(f"standard input ends before {REQUEST}; {_AGAIN}")
    with open_regular(into / REQUEST) as file:
        request = parse_object(file.read(_MAX_REQUEST + 1), REQUEST, limit=_MAX_REQUEST)
    return _folders(request.get("folders"), seen, into), texts_of(request.get("texts"), REQUEST)


def _checked(member: tarfile.TarInfo, seen: Sequence[str]) -> str:
    # Sparse and contiguous files call themselves regular too.
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise RefusedError(f"standard input: {member.name[:80]!r} is no plain file; send plain files only")
    try:
        names.safe_paths([*seen, member.name])
    except UsageError as error:
        raise RefusedError(f"standard input: {error}") from error
    return member.name


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = archive.extractfile(member)
    assert source is not None  # of a plain file it never is
    with os_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(source, file)


def _folders(named: object, seen: Sequence[str], into: Path) -> list[Path]:
    sent = {posixpath.dirname(name) for name in seen} - {""}
    if not isinstance(named, list) or not named or not all(isinstance(name, str) and name in sent for name in named):
        raise CorruptError(f"{REQUEST}: folders is {str(named)[:80]}; name folders that were sent, one or more")
    return [into / name for name in named]


def texts_of(value: object, where: str) -> list[str]:
    """The value, where it is a list of texts that is not empty. Raises CorruptError."""
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise CorruptError(f"{where}: {str(value)[:80]} is no list of texts; give one text or more")
    return value
