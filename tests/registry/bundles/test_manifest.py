"""The manifest: reads back what was written, is deterministic, and refuses everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import BundleFile, CorruptError, UsageError
from slm_registry.bundles.manifest import encode_config, encode_manifest, parse_lineage, parse_manifest
from slm_registry.plumbing.hashing import CHUNKS, PREFIXES, Form, digest_of
from slm_registry.plumbing.jsonio import canonical

CHUNK = 8


def file_of(path: str, data: bytes, form: Form = PREFIXES) -> BundleFile:
    spans = [(0 if form == PREFIXES else start, start + CHUNK) for start in range(0, len(data), CHUNK)]
    return BundleFile(path, len(data), digest_of(data), tuple(digest_of(data[start:end])[7:] for start, end in spans))


FILES = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}\.(json|onnx|md|bin)", fullmatch=True), st.binary(max_size=40), min_size=1, max_size=6
)
LINEAGE = st.dictionaries(
    st.text(max_size=5),
    st.recursive(st.integers() | st.text(max_size=5) | st.none(), st.lists, max_leaves=5),
    max_size=4,
)


@given(FILES, LINEAGE, st.sampled_from([CHUNKS, PREFIXES]))
def test_reads_back(contents: dict[str, bytes], lineage: dict[str, Any], form: Form) -> None:
    files = tuple(file_of(path, data, form) for path, data in sorted(contents.items()))
    config = encode_config("m", "1.0.0", files, lineage)
    data = encode_manifest("m", "1.0.0", files, config, CHUNK, form)
    manifest = parse_manifest(data, "m", "1.0.0")
    assert (manifest.files, manifest.form) == (files, form)
    assert (manifest.chunk_size, manifest.digest) == (CHUNK, digest_of(data))
    assert (manifest.config, manifest.config_size) == (digest_of(config), len(config))
    assert parse_lineage(config, "config") == lineage
    shuffled = dict(reversed(lineage.items()))
    assert encode_config("m", "1.0.0", files, shuffled) == config


def example(form: Form = CHUNKS) -> dict[str, Any]:
    contents = {"config.json": b"{}", "model.onnx": b"0123456789", "README.md": b""}
    files = [file_of(path, data, form) for path, data in contents.items()]
    config = encode_config("m", "1.0.0", files, {"git_commit": "0" * 40})
    value: dict[str, Any] = json.loads(encode_manifest("m", "1.0.0", files, config, CHUNK, form))
    return value


def test_it_is_an_oci_manifest_with_modelpack_types() -> None:
    value = example()
    assert value["schemaVersion"] == 2
    assert value["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert value["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert value["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert [layer["mediaType"].split(".", 3)[3] for layer in value["layers"]] == [
        "weight.config.v1.raw",
        "weight.v1.raw",
        "doc.v1.raw",
    ]
    assert [layer["annotations"]["org.cncf.model.filepath"] for layer in value["layers"]] == [
        "config.json",
        "model.onnx",
        "README.md",
    ]


def changed(keys: tuple[str | int, ...], value: Any, form: Form = CHUNKS) -> bytes:
    manifest = example(form)
    item: Any = manifest
    for key in keys[:-1]:
        item = item[key]
    item[keys[-1]] = value
    return canonical(manifest)


PATH, CHUNK_LIST = "org.cncf.model.filepath", "io.slm-registry.chunks.sha256"


FIRST, SECOND, THIRD = (("layers", index) for index in range(3))
FIRST_PATH, FIRST_CHUNKS = (*FIRST, "annotations", PATH), (*FIRST, "annotations", CHUNK_LIST)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("mediaType",), "application/json"),
        (("artifactType",), "x"),
        (("config",), []),
        (("config", "digest"), "sha256:0"),
        (("config", "size"), 1 << 40),
        (("annotations", "org.opencontainers.image.title"), "other"),
        (("annotations", "org.opencontainers.image.version"), "2.0.0"),
        (("annotations",), None),
        (("layers",), []),
        (("layers",), None),
        (("layers",), [None]),
        ((*FIRST, "size"), -1),
        ((*FIRST, "size"), True),
        ((*FIRST, "size"), 1 << 60),
        ((*FIRST, "size"), 9),
        ((*FIRST, "digest"), "md5:0"),
        ((*FIRST, "digest"), "sha256:" + "00" * 32),
        ((*THIRD, "digest"), "sha256:" + "00" * 32),
        (FIRST_PATH, "../../home/user/.bashrc"),
        (FIRST_PATH, "/etc/passwd"),
        (FIRST_PATH, "MODEL.onnx"),
        (FIRST_PATH, None),
        (FIRST_CHUNKS, "8:"),
        (FIRST_CHUNKS, "0:"),
        (FIRST_CHUNKS, "16:" + "00" * 32),
        (FIRST_CHUNKS, "8:" + "00" * 31),
        ((*SECOND, "annotations", CHUNK_LIST), "8:" + "00" * 64),
    ],
)
def test_what_is_no_manifest(keys: tuple[str | int, ...], value: Any) -> None:
    parse_manifest(canonical(example()), "m", "1.0.0")
    with pytest.raises(CorruptError):
        parse_manifest(changed(keys, value), "m", "1.0.0")


PREFIX_LIST = "io.slm-registry.prefixes.sha256"


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ((*FIRST, "annotations", CHUNK_LIST), "8:" + "00" * 32),
        ((*FIRST, "annotations"), {PATH: "config.json"}),
        ((*FIRST, "annotations", PREFIX_LIST), "8:" + "00" * 32),
        ((*FIRST, "annotations", PREFIX_LIST), "16:"),
        ((*FIRST, "annotations", PREFIX_LIST), None),
        ((*SECOND, "annotations", PREFIX_LIST), "8:"),
        ((*SECOND, "annotations", PREFIX_LIST), "8:" + "00" * 64),
        ((*THIRD, "annotations", PREFIX_LIST), "8:" + "00" * 32),
        ((*THIRD, "digest"), "sha256:" + "00" * 32),
        ((*THIRD, "annotations"), {PATH: "README.md", CHUNK_LIST: "8:"}),
    ],
)
def test_what_is_no_manifest_of_prefixes(keys: tuple[str | int, ...], value: Any) -> None:
    parse_manifest(canonical(example(PREFIXES)), "m", "1.0.0")
    with pytest.raises(CorruptError):
        parse_manifest(changed(keys, value, PREFIXES), "m", "1.0.0")


@given(st.binary(max_size=100))
def test_any_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError):
        parse_manifest(data, "m", "1.0.0")
    with pytest.raises(CorruptError):
        parse_lineage(data, "config")


@given(st.data(), st.sampled_from([CHUNKS, PREFIXES]))
def test_any_json_anywhere_is_a_manifest_or_corrupt(data: st.DataObject, form: Form) -> None:
    manifest = example(form)
    item: Any = manifest
    while isinstance(item, dict | list) and item:
        key = data.draw(st.sampled_from(sorted(item) if isinstance(item, dict) else range(len(item))))
        if not isinstance(item[key], dict | list) or data.draw(st.booleans()):
            item[key] = data.draw(st.none() | st.integers() | st.text(max_size=9) | st.just([]) | st.just({"a": {}}))
            break
        item = item[key]
    try:
        parsed = parse_manifest(canonical(manifest), "m", "1.0.0")
    except CorruptError:
        return
    assert all(".." not in file.path.split("/") for file in parsed.files)


def test_lineage_is_bounded_json() -> None:
    deep: list[Any] = []
    for _ in range(40):
        deep = [deep]
    for lineage in ({"x": "y" * (5 << 20)}, {"x": float("inf")}, {"x": {1, 2}}, {"x": deep}, {"x": "\ud800"}, ["x"]):
        with pytest.raises(UsageError):
            encode_config("m", "1.0.0", (file_of("a", b"b"),), lineage)  # type: ignore[arg-type]
