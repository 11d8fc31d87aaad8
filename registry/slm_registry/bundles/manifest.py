"""The manifest of a version: an OCI image manifest with the CNCF ModelPack media types, one raw layer a file.

Built from the same files, name, version and lineage it is the same bytes, always and everywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slm_registry import names
from slm_registry.errors import CorruptError, UsageError
from slm_registry.plumbing.hashing import CHUNKS, PREFIXES, Form, digest_of
from slm_registry.plumbing.jsonio import canonical, parse_object

MAX_MANIFEST = 8 << 20
MAX_CONFIG = 4 << 20
MAX_FILES = 10_000
MAX_FILE_SIZE = 1 << 42
MAX_SIZE = MAX_FILES * MAX_FILE_SIZE

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
_CONFIG = "application/vnd.cncf.model.config.v1+json"
_WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
_WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
_DOC = "application/vnd.cncf.model.doc.v1.raw"
_PATH = "org.cncf.model.filepath"
# Of a file's chunks all digests, or of its prefixes all but the last one, which is the file's own.
_LISTS: Mapping[Form, str] = {CHUNKS: "io.slm-registry.chunks.sha256", PREFIXES: "io.slm-registry.prefixes.sha256"}
_NAME = "org.opencontainers.image.title"
_VERSION = "org.opencontainers.image.version"

_WEIGHT_FILE = re.compile(r"\.(onnx|safetensors|gguf)([._-]data)?$")
_DOC_FILE = re.compile(r"(\.(md|html|pdf|rst|png|svg)|(^|/)(license|notice)(\.txt)?)$")
_CHUNK_LIST = re.compile(r"([1-9][0-9]{0,12}):((?:[0-9a-f]{64}(?:,[0-9a-f]{64})*)?)")

_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle: relative path, size in bytes, digest, and a bare hex digest for each chunk (see FileDigests).

    `checksums` are the CRC-32 of its chunks where this process read them to send them.
    """

    path: str
    size: int
    digest: str
    chunks: tuple[str, ...] = ()
    checksums: tuple[int, ...] = field(default=(), compare=False, repr=False)

    @property
    def media_type(self) -> str:
        """The ModelPack media type that the file's name stands for."""
        lowered = self.path.lower()
        if _WEIGHT_FILE.search(lowered):
            return _WEIGHT
        return _DOC if _DOC_FILE.search(lowered) else _WEIGHT_CONFIG


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest. `digest` is that of its bytes, `config` and `config_size` tell where the lineage is."""

    model: str
    version: str
    files: tuple[BundleFile, ...]
    chunk_size: int
    config: str
    config_size: int
    digest: str
    form: Form = PREFIXES

    def file_digests(self) -> dict[str, str]:
        """Path to digest: two versions with the same map hold the same files."""
        return {file.path: file.digest for file in self.files}


def encode_config(model: str, version: str, files: Sequence[BundleFile], lineage: Mapping[str, Any]) -> bytes:
    """The config blob: ModelPack's fields, and the lineage. Raises UsageError where the lineage is no JSON object."""
    if not isinstance(lineage, Mapping):
        raise UsageError(f"lineage: a JSON object was expected, found {type(lineage).__name__}")
    data = canonical(
        {
            "descriptor": {"name": model, "version": version},
            "config": {},
            "modelfs": {"type": "layers", "diffIds": [file.digest for file in files]},
            "lineage": dict(lineage),
        }
    )
    if len(data) > MAX_CONFIG:
        raise UsageError(f"lineage: {len(data)} bytes, more than the {MAX_CONFIG} allowed; record digests, not data")
    return data


def parse_lineage(data: bytes, what: str) -> dict[str, Any]:
    """The lineage in a config blob. Raises CorruptError where there is none."""
    lineage = parse_object(data, what, limit=MAX_CONFIG).get("lineage")
    if not isinstance(lineage, dict):
        raise CorruptError(f"{what}: it carries no lineage")
    return lineage


def encode_manifest(
    model: str,
    version: str,
    files: Sequence[BundleFile],
    config: bytes,
    chunk_size: int,
    form: Form = PREFIXES,
) -> bytes:
    """The manifest's bytes, for files digested in this form. Raises UsageError where they would be more than a reader takes."""
    layers = [
        {
            "mediaType": file.media_type,
            "digest": file.digest,
            "size": file.size,
            "annotations": {_PATH: file.path, _LISTS[form]: f"{chunk_size}:{','.join(_listed(file, form))}"},
        }
        for file in files
    ]
    data = canonical(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": _ARTIFACT,
            "config": {"mediaType": _CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": layers,
            "annotations": {_NAME: model, _VERSION: version},
        }
    )
    if len(data) > MAX_MANIFEST:
        raise UsageError(f"manifest of {model}@{version}: {len(data)} bytes, more than the {MAX_MANIFEST} allowed")
    return data


def parse_manifest(data: bytes, model: str, version: str) -> Manifest:
    """Read the manifest of a version. Raises CorruptError where it is none, or that of another model or version."""
    what = f"manifest of {model}@{version}"
    value = parse_object(data, what, limit=MAX_MANIFEST)
    try:
        found = (value["mediaType"], value["artifactType"], value["config"]["mediaType"])
        if found != (_MANIFEST, _ARTIFACT, _CONFIG):
            raise CorruptError(f"{what}: unknown media types {found}; upgrade slm-registry")
        if (value["annotations"][_NAME], value["annotations"][_VERSION]) != (model, version):
            raise CorruptError(f"{what}: it belongs to {value['annotations'][_NAME]}@{value['annotations'][_VERSION]}")
        if not 0 < len(value["layers"]) <= MAX_FILES:
            raise CorruptError(f"{what}: {len(value['layers'])} files, 1 to {MAX_FILES} are allowed")
        parsed = [_parse_layer(layer, what) for layer in value["layers"]]
        chunk_size, form = parsed[0][1]
        files = tuple(file for file, _ in parsed)
        _check_files(files, {kind for _, kind in parsed}, what)
        config, config_size = _descriptor(value["config"], what, MAX_CONFIG)
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{what}: a field is missing or of the wrong kind: {error!r}") from error
    return Manifest(model, version, files, chunk_size, config, config_size, digest_of(data), form)


def _descriptor(value: Mapping[str, Any], what: str, limit: int) -> tuple[str, int]:
    digest, size = value["digest"], value["size"]
    if not isinstance(digest, str) or not names.is_digest(digest) or type(size) is not int or not 0 <= size <= limit:
        raise CorruptError(f"{what}: digest {str(digest)[:80]!r} or size {str(size)[:20]} is malformed")
    return digest, size


def _listed(file: BundleFile, form: Form) -> tuple[str, ...]:
    return file.chunks if form == CHUNKS else file.chunks[:-1]


def _parse_layer(layer: Mapping[str, Any], what: str) -> tuple[BundleFile, tuple[int, Form]]:
    """A file, and the size of its chunks and what their digests are of."""
    digest, size = _descriptor(layer, what, MAX_FILE_SIZE)
    path = layer["annotations"][_PATH]
    forms = [form for form, name in _LISTS.items() if name in layer["annotations"]]
    if len(forms) != 1:
        raise CorruptError(f"{what}: layer {digest} has {len(forms)} known lists of chunks; upgrade slm-registry")
    match = _CHUNK_LIST.fullmatch(layer["annotations"][_LISTS[forms[0]]])
    if match is None or not isinstance(path, str):
        raise CorruptError(f"{what}: the path or the chunks of layer {digest} are malformed")
    chunk_size = int(match[1])
    chunks = tuple(match[2].split(",")) if match[2] else ()
    if forms[0] == PREFIXES and size:
        chunks = (*chunks, digest.removeprefix("sha256:"))
    if len(chunks) != -(-size // chunk_size):
        raise CorruptError(f"{what}: {path[:80]!r} has {size} bytes and {len(chunks)} chunks of {chunk_size}")
    if len(chunks) < 2 and digest != "sha256:" + (chunks[0] if chunks else _EMPTY):
        raise CorruptError(f"{what}: {path[:80]!r} has another digest than its only chunk")
    return BundleFile(path, size, digest, chunks), (chunk_size, forms[0])


def _check_files(files: Sequence[BundleFile], kinds: set[tuple[int, Form]], what: str) -> None:
    if len(kinds) != 1:
        raise CorruptError(f"{what}: its files have different chunk sizes, or different kinds of chunk digests")
    try:
        names.safe_paths(file.path for file in files)
    except UsageError as error:
        raise CorruptError(f"{what}: {error}") from error
