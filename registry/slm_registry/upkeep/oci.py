"""A version as an OCI image layout, which oras, skopeo and kit read, and back.

https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md

oci-layout                the layout's version
index.json                which manifests there are, each by its tag
blobs/sha256/<hex>        the manifest, its config and its layers; here, the very blobs of the registry
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from slm_registry import names
from slm_registry.bundles.contents import read_bundle
from slm_registry.bundles.manifest import (
    MAX_CONFIG,
    MAX_FILE_SIZE,
    MAX_FILES,
    MAX_MANIFEST,
    parse_lineage,
    parse_manifest,
)
from slm_registry.caching.cache import Cache
from slm_registry.caching.eviction import fetching
from slm_registry.changes.publish import Published, Publisher
from slm_registry.errors import CorruptError, NotFoundError, RefusedError, RegistryError, UsageError, near
from slm_registry.plumbing.destination import filled, vacant
from slm_registry.plumbing.files import make_folders, open_regular, os_errors, removed
from slm_registry.plumbing.hashing import CHUNK, PREFIXES, Form, digest_of, read_blocks
from slm_registry.plumbing.jsonio import canonical, parse_object
from slm_registry.stores.base import Store
from slm_registry.transfer.blobs import read_json_blob

MAX_INDEX = 4 << 20
_LAYOUT = {"imageLayoutVersion": "1.0.0"}
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_TAG = "org.opencontainers.image.ref.name"
_VERSION = "org.opencontainers.image.version"
# Where a layer's path stands: ModelPack's own annotation, and the one that oras writes.
_PATHS = ("org.cncf.model.filepath", "org.opencontainers.image.title")
_PACKED = ("+gzip", "+zstd", ".tar", "tar")


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import published. Where `same_manifest` is False, `why` says why its bytes could not be kept."""

    published: Published
    source: str
    same_manifest: bool
    why: str


def export_layout(store: Store, cache: Cache, model: str, version: str, digest: str, out: Path) -> Path:
    """Write a version into a folder that is new or empty, every byte verified. Returns the folder."""
    with os_errors("write", out):
        if not vacant(out):
            raise UsageError(f"{out} holds other files; name a new or an empty folder")
    what = f"manifest of {model}@{version}"
    data = read_json_blob(store, digest, MAX_MANIFEST, what)
    manifest = parse_manifest(data, model, version)
    config = read_json_blob(store, manifest.config, MAX_CONFIG, f"lineage of {model}@{version}")
    with cache.using(manifest) as snapshot, os_errors("write", out), filled(out, last="index.json") as place:
        blobs = place / "blobs" / "sha256"
        make_folders(blobs)
        for file in manifest.files:
            shutil.copyfile(snapshot / file.path, blobs / file.digest.removeprefix("sha256:"))
        for blob in (data, config):
            (blobs / digest_of(blob).removeprefix("sha256:")).write_bytes(blob)
        (place / "oci-layout").write_bytes(canonical(_LAYOUT))
        (place / "index.json").write_bytes(_index(data, version))
    return out


def import_layout(
    publisher: Publisher,
    layout: Path,
    cache: Cache,
    *,
    tag: str | None = None,
    version: str | None = None,
    reason: str = "",
) -> Imported:
    """Publish the manifest of a layout as a version of the publisher's model, by way of the cache's folder.

    The manifest's bytes stay the same where this package wrote them, for this model and version. Raises CorruptError
    for a layout that is not what it says, RefusedError for content that no bundle may hold.
    """
    source = _read_manifest(layout, tag)
    wanted = version or source.version
    work = cache.root / ".tmp" / uuid.uuid4().hex
    # An eviction takes what lies in the folder of those who fetch, unless somebody fetches.
    with os_errors("write", work), fetching(cache.root), removed(work):
        make_folders(work)
        for path, digest, size in source.layers:
            _copy_blob(layout, digest, size, work / path)
        _check_copy(work, source)
        writer = replace(publisher, chunk_size=source.chunk_size, form=source.form)
        done = writer.publish(work, version=wanted, lineage=source.lineage, alias=None, reason=reason)
    same = done.digest == source.digest
    return Imported(done, source.digest, same, "" if same else _why(source, done))


@dataclass(frozen=True, slots=True)
class _Source:
    """A manifest of a layout: its layers as (path, digest, size), and what is taken over from it."""

    digest: str
    layers: tuple[tuple[str, str, int], ...]
    lineage: dict[str, Any]
    model: str | None
    version: str | None
    chunk_size: int = CHUNK
    form: Form = PREFIXES


def _index(manifest: bytes, version: str) -> bytes:
    value = parse_object(manifest, "manifest", limit=MAX_MANIFEST)
    descriptor = {
        "mediaType": _MANIFEST,
        "artifactType": value["artifactType"],
        "digest": digest_of(manifest),
        "size": len(manifest),
        "annotations": {_TAG: version},
    }
    return canonical({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [descriptor]})


def _read_manifest(layout: Path, tag: str | None) -> _Source:
    if not layout.is_dir():
        raise UsageError(f"layout {layout}: there is no such folder; give the folder that holds oci-layout")
    for folder in (layout / "blobs", layout / "blobs" / "sha256"):
        if folder.is_symlink() or not folder.is_dir():
            raise CorruptError(f"layout {folder}: a plain folder was expected; this is no OCI image layout")
    marker = parse_object(_read(layout / "oci-layout", 4096), f"layout {layout}/oci-layout")
    if marker.get("imageLayoutVersion") != "1.0.0":
        raise CorruptError(f"layout {layout}: version {str(marker.get('imageLayoutVersion'))[:40]!r}; 1.0.0 is read")
    what = f"layout {layout}/index.json"
    digest, size = _choose(parse_object(_read(layout / "index.json", MAX_INDEX), what, limit=MAX_INDEX), what, tag)
    data = _read_blob(layout, digest, size, MAX_MANIFEST)
    value = parse_object(data, f"layout {layout}: manifest", limit=MAX_MANIFEST)
    with _fields(f"layout {layout}: manifest"):
        annotations = value.get("annotations") or {}
        model, version = annotations.get("org.opencontainers.image.title"), annotations.get(_VERSION)
        config = _read_blob(layout, *_descriptor(value["config"], "config"), MAX_CONFIG)
        own = _own(data, config, model, version)
        if own is not None:
            return own
        layers = tuple(_layer(layer) for layer in value["layers"])
        if not 0 < len(layers) <= MAX_FILES:
            raise CorruptError(f"layout {layout}: {len(layers)} layers; 1 to {MAX_FILES} are allowed")
    _check_paths(layout, [path for path, _, _ in layers])
    lineage = {"imported_from": {"manifest": digest, "config": digest_of(config)}}
    known = version if isinstance(version, str) and names.is_version(version) else None
    return _Source(digest, layers, lineage, None, known)


def _own(data: bytes, config: bytes, model: object, version: object) -> _Source | None:
    """The manifest as this package wrote it; None where another tool did."""
    if not isinstance(model, str) or not isinstance(version, str):
        return None
    try:
        names.model_name(model)
        names.version_key(version)
        found = parse_manifest(data, model, version)
        lineage = parse_lineage(config, "config")
    except RegistryError:
        return None
    layers = tuple((file.path, file.digest, file.size) for file in found.files)
    return _Source(found.digest, layers, lineage, model, version, found.chunk_size, found.form)


def _choose(index: Mapping[str, Any], what: str, tag: str | None) -> tuple[str, int]:
    """The descriptor of the manifest that is meant: the one with the tag, or the only one."""
    with _fields(what):
        found = {}
        for number, item in enumerate(index["manifests"]):
            if item["mediaType"] != _MANIFEST:
                raise CorruptError(
                    f"{what}: {str(item['mediaType'])[:80]!r} is no image manifest; nothing else is read"
                )
            found[str((item.get("annotations") or {}).get(_TAG, f"#{number}"))] = _descriptor(item, what)
    if tag is None and len(found) == 1:
        return next(iter(found.values()))
    if tag is None:
        raise UsageError(f"{what}: it holds {len(found)} manifests; say which with --tag ({near('', found)})")
    if tag not in found:
        raise NotFoundError(f"{what}: there is no tag {tag[:80]!r}; {near(tag, found)}")
    return found[tag]


def _descriptor(value: Mapping[str, Any], what: str) -> tuple[str, int]:
    digest, size = value["digest"], value["size"]
    if not isinstance(digest, str) or not names.is_digest(digest):
        raise CorruptError(f"{what}: digest {str(digest)[:80]!r} is malformed; sha256 is read")
    if type(size) is not int or not 0 <= size <= MAX_FILE_SIZE:
        raise CorruptError(f"{what}: size {str(size)[:40]} is malformed")
    return digest, size


def _layer(layer: Mapping[str, Any]) -> tuple[str, str, int]:
    """A raw layer's path, digest and size. Packed ones are refused: archives hide what is in them."""
    digest, size = _descriptor(layer, "layer")
    kind = layer["mediaType"]
    if not isinstance(kind, str) or kind.endswith(_PACKED):
        raise RefusedError(f"layer {digest}: {str(kind)[:80]!r} is an archive; pack the model again with raw layers")
    annotations = layer.get("annotations") or {}
    path = next((annotations[key] for key in _PATHS if key in annotations), None)
    if not isinstance(path, str):
        raise CorruptError(f"layer {digest}: it does not say which file it is ({' or '.join(_PATHS)})")
    return path, digest, size


def _check_paths(layout: Path, paths: Sequence[str]) -> None:
    try:
        names.safe_paths(paths)
    except UsageError as error:
        raise CorruptError(f"layout {layout}: {error}") from error


def _read_blob(layout: Path, digest: str, size: int, limit: int) -> bytes:
    if size > limit:
        raise CorruptError(f"layout {layout}: {digest} has {size} bytes, more than the {limit} allowed")
    data = _read(_blob_path(layout, digest), limit)
    if (len(data), digest_of(data)) != (size, digest):
        raise CorruptError(f"layout {layout}: {digest} is altered; copy the layout again")
    return data


def _copy_blob(layout: Path, digest: str, size: int, target: Path) -> None:
    """Copy a blob, hashed as it passes; never more than it is said to have."""
    source = _blob_path(layout, digest)
    make_folders(target.parent)
    hasher, length = hashlib.sha256(), 0
    with _opened(source) as file, target.open("xb") as copy:
        for block in read_blocks(file, size + 1):
            hasher.update(block)
            copy.write(block)
            length += len(block)
    if (length, "sha256:" + hasher.hexdigest()) != (size, digest):
        raise CorruptError(f"{source}: it is not the {size} bytes that its name says; copy the layout again")


def _check_copy(work: Path, source: _Source) -> None:
    """What is published stands for ever: it is looked at as a whole once more."""
    copied = {file.path: file.digest for file in read_bundle(work, source.chunk_size)}
    wrong = sorted({path for path, _ in copied.items() ^ {layer[:2] for layer in source.layers}})
    if wrong:
        raise CorruptError(f"{work / wrong[0]}: altered or gone since it was copied from the layout; run it again")


def _blob_path(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _read(path: Path, limit: int) -> bytes:
    with _opened(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CorruptError(f"{path}: more than the {limit} bytes allowed")
    return data


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with os_errors("read", path):
        try:
            file = open_regular(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CorruptError(f"{path}: missing from the layout; copy the layout again") from error
    with file:
        yield file


@contextlib.contextmanager
def _fields(what: str) -> Iterator[None]:
    """A field that is missing or of another kind is an error of the layout, not of this program."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{what}: a field is missing or of the wrong kind: {error!r}") from error


def _why(source: _Source, done: Published) -> str:
    """Why the manifest that was published is not the one of the layout."""
    if source.model is None:
        return "another tool wrote it: ours also names the model, the version and the digest of each chunk"
    if (source.model, source.version) != (done.model, done.version):
        return f"it names {source.model}@{source.version}, and this is {done.model}@{done.version}"
    return "another release of this package wrote it, in another form"
