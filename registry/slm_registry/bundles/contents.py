"""What may stand in a bundle: a walk of the folder that refuses what could run code or reach outside."""

from __future__ import annotations

import io
import os
import posixpath
import re
import stat
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from slm_registry import names
from slm_registry.bundles.manifest import MAX_FILES, BundleFile
from slm_registry.bundles.onnxfile import external_locations
from slm_registry.bundles.pickles import calls_something
from slm_registry.errors import CorruptError, RefusedError, UsageError
from slm_registry.plumbing.files import open_regular, os_errors
from slm_registry.plumbing.hashing import CHUNK, PREFIXES, Form, digest_file
from slm_registry.plumbing.jsonio import parse_object
from slm_registry.plumbing.parallel import each
from slm_registry.stores.folder import Copy

_SNIFF = 64 << 10
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".dill", ".ckpt")
# Archives hide what is in them; torch, joblib and numpy put pickles there.
_ARCHIVES: Mapping[bytes, str] = {
    b"PK\x03\x04": "a zip archive (torch.save and numpy.savez write these)",
    b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"\x04\x22\x4d\x18": "an lz4 archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
}
_INSTEAD = "publish weights as .safetensors or .onnx"


def read_bundle(
    folder: Path,
    chunk_size: int = CHUNK,
    copying: Callable[[], AbstractContextManager[Copy]] | None = None,
    held: Collection[tuple[str, int]] = (),
    *,
    form: Form = PREFIXES,
    checksums: bool = False,
) -> tuple[BundleFile, ...]:
    """Check a folder and digest every file in it, sorted by path; with `copying` (see FolderStore), all but those with
    a path and a size among `held` are copied in the same pass. `form` and `checksums` as in FileDigests.

    Raises RefusedError for forbidden content, UsageError where the folder is no bundle at all.
    """

    def read(path: str) -> BundleFile:
        with os_errors("read", folder / path), open_regular(folder / path) as file:
            if copying is None or (path, os.fstat(file.fileno()).st_size) in held:
                found = digest_file(file, chunk_size, form=form, checksums=checksums)
            else:
                with copying() as copy, os_errors("read", folder / path):
                    found = digest_file(file, chunk_size, copy.write, form=form, checksums=checksums)
                    copy.keep(found.digest)
        return BundleFile(path, found.size, found.digest, found.chunks, found.checksums)

    # The largest first: the last core at work is then soon done.
    with os_errors("read", folder):
        paths = sorted(check_bundle(folder), key=lambda path: -(folder / path).lstat().st_size)
    return tuple(sorted(each(read, paths, os.cpu_count() or 1), key=lambda file: file.path))


def check_bundle(folder: Path) -> tuple[str, ...]:
    """The relative paths of a bundle's files, sorted. Raises as `read_bundle` does."""
    if not folder.is_dir():
        raise UsageError(f"bundle {folder}: there is no such folder; give the folder that holds config.json")
    paths = tuple(sorted(_walk(folder)))
    if not paths:
        raise RefusedError(f"bundle {folder}: the folder is empty; a bundle holds config.json, a tokenizer and a model")
    if "config.json" not in paths:
        raise RefusedError(f"bundle {folder}: config.json is missing; save the model's configuration into the folder")
    if len(paths) > MAX_FILES:
        raise RefusedError(f"bundle {folder}: {len(paths)} files, more than the {MAX_FILES} allowed")
    try:
        names.safe_paths(paths)
    except UsageError as error:
        raise RefusedError(f"bundle {folder}: {error}; rename the file") from error
    for path in paths:
        _check_file(folder, path, paths)
    return paths


def _walk(folder: Path) -> Iterator[str]:
    """Every file below a folder, as relative paths with slashes. Links and devices end the walk."""
    pending = [folder]
    while pending:
        current = pending.pop()
        with os_errors("read", current), os.scandir(current) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                path = Path(entry.path)
                if stat.S_ISDIR(mode):
                    pending.append(path)
                elif stat.S_ISREG(mode):
                    yield path.relative_to(folder).as_posix()
                else:
                    kind = "a symbolic link" if stat.S_ISLNK(mode) else "a device, pipe or socket"
                    raise RefusedError(f"{path}: {kind}; a bundle holds plain files only, copy the file there")


def _check_file(folder: Path, path: str, paths: Sequence[str]) -> None:
    suffix = posixpath.splitext(path)[1].lower()
    if suffix in _PICKLE_SUFFIXES:
        raise RefusedError(f"{path}: a {suffix} file may be a pickle, and loading one runs code; {_INSTEAD}")
    with os_errors("read", folder / path), open_regular(folder / path) as file:
        problem = _code_inside(file)
    if problem:
        raise RefusedError(f"{path}: it is {problem}; {_INSTEAD}")
    if suffix == ".onnx":
        _check_onnx(folder, path, paths)
    elif path.lower().endswith("config.json"):
        _check_config(folder / path, path)


def _code_inside(file: BinaryIO) -> str | None:
    """What a file is by its content, where that can carry code or hide it."""
    head = file.read(_SNIFF)
    for magic, kind in _ARCHIVES.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head.startswith(b"\x93NUMPY"):
        return None if _plain_array(head) else "a numpy array of Python objects, which is a pickle, or a broken one"
    if head[:1] == b"\x78" and _inflates(head):
        return "a zlib stream (joblib writes these)"
    return "a pickle" if re.match(rb"\x80[\x02-\x05]", head) or calls_something(file) else None


def _plain_array(head: bytes) -> bool:
    """Whether an .npy header announces numbers and not objects."""
    from numpy.lib import format as npy

    file = io.BytesIO(head)
    try:
        major, _ = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        dtype = read_header(file)[2]
    except Exception:
        # The header is Python's own syntax, read by its parser: hostile text can fail in any of its ways.
        return False
    return not dtype.hasobject


def _inflates(head: bytes) -> bool:
    try:
        return len(zlib.decompressobj().decompress(head, 1024)) > 0
    except zlib.error:
        return False


def _check_onnx(folder: Path, path: str, paths: Sequence[str]) -> None:
    for location in sorted(external_locations(folder / path)):
        target = posixpath.join(posixpath.dirname(path), location)
        try:
            names.safe_path(location)
        except UsageError as error:
            raise RefusedError(f"{path}: its weights lie outside the bundle: {error}; save them beside it") from error
        if target not in paths:
            raise RefusedError(f"{path}: its weights are in {location!r}, which is missing; put that file beside it")


def _check_config(file: Path, path: str) -> None:
    with os_errors("read", file), open_regular(file) as opened:
        data = opened.read((1 << 20) + 1)
    try:
        value = parse_object(data, path)
    except CorruptError as error:
        raise RefusedError(f"{error}; correct the file") from error
    for key in _keys(value):
        if key == "auto_map":
            raise RefusedError(f"{path}: the key 'auto_map' makes loaders run code from the bundle; remove it")
        if key.endswith("_internal"):
            raise RefusedError(f"{path}: the key {key!r} reaches into a loader's internals; remove it")


def _keys(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
