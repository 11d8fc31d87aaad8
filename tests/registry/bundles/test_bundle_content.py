"""What a bundle may not hold."""

from __future__ import annotations

import bz2
import contextlib
import io
import json
import lzma
import os
import pickle
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from slm_registry import RefusedError, UsageError
from slm_registry.bundles import onnxfile
from slm_registry.bundles.contents import _code_inside, check_bundle, read_bundle
from slm_registry.plumbing.hashing import digest_of


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Exploit()))
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return data.getvalue()


def saved(array: np.ndarray[Any, Any]) -> bytes:
    data = io.BytesIO()
    np.save(data, array, allow_pickle=True)
    return data.getvalue()


def array_header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


HIDDEN = {
    **{f"pickle protocol {protocol}": pickle.dumps(Exploit(), protocol) for protocol in range(6)},
    "a long old pickle": pickle.dumps([Exploit(), "x" * 200_000], 0),
    "torch zip": zipped(),
    "tar": tarred(),
    "gzip": zlib.compress(b"x", wbits=31),
    "bz2": bz2.compress(b"x"),
    "xz": lzma.compress(b"x"),
    "joblib zlib": zlib.compress(pickle.dumps(Exploit())),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(20),
    "object array": saved(np.array([{}, []], dtype=object)),
    "array of records with objects": saved(np.zeros(2, dtype=[("a", "i4"), ("b", object)])),
    "broken array": b"\x93NUMPY\x01\x00\xff\xff{",
    **{
        f"array header {text[:12]!r}": array_header(text)
        for text in (
            b"{[]:1}",
            b"-" * 9000 + b"1",
            b"(" * 9000,
            b"{'descr':'O'}",
            b"1",
            b"{'descr':[[[]]]}",
            b"\xff\x00",
        )
    },
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_code_is_found_under_any_name(bundle: Path, kind: str) -> None:
    (bundle / "notes.txt").write_bytes(HIDDEN[kind])
    with pytest.raises(RefusedError, match=r"notes\.txt"):
        check_bundle(bundle)


@pytest.mark.parametrize("name", ["a.pkl", "a.pickle", "a.pt", "a.pth", "pytorch_model.bin", "a.joblib", "x/a.Pt"])
def test_names_that_mean_pickle(bundle: Path, name: str) -> None:
    (bundle / "x").mkdir()
    (bundle / name).write_bytes(b"harmless")
    with pytest.raises(RefusedError, match="runs code"):
        check_bundle(bundle)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x^2 + y^2 is the square of the distance\n",
        b"[PAD]\n[UNK]\ncat\ndog\n",
        b"cat\ndog\nhouse\n" * 9000,
        b"#version: 0.2\nt h\n",
        b'{"a": 1}',
        saved(np.zeros(3, dtype=np.float32)),
        b"\x08\x09onnx",
        (9).to_bytes(8, "little") + b'{"a":{}} ',
        "Grüße, naïve café\n".encode(),
        b"(note)\n.\n",
    ],
)
def test_what_is_harmless(bundle: Path, data: bytes) -> None:
    (bundle / "notes.txt").write_bytes(data)
    assert "notes.txt" in check_bundle(bundle)


@given(st.binary(max_size=300))
def test_the_look_inside_never_fails(data: bytes) -> None:
    _code_inside(io.BytesIO(data))


@given(st.binary(max_size=60) | st.text(alphabet="{}[]():,'descrfotan_pe<0123-", max_size=60).map(str.encode))
def test_any_header_of_an_array_is_read_or_refused(text: bytes) -> None:
    _code_inside(io.BytesIO(array_header(text)))


@given(
    st.recursive(st.integers() | st.text(max_size=5) | st.just(Exploit()), st.lists, max_leaves=5), st.integers(0, 5)
)
def test_whatever_would_run_code_is_seen(value: Any, protocol: int) -> None:
    data = pickle.dumps([value, Exploit()], protocol)
    assert _code_inside(io.BytesIO(data)) == "a pickle"


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json", "sub/config.json"])
@pytest.mark.parametrize("extra", [{"auto_map": {"AutoModel": "x.Y"}}, {"_attn_implementation_internal": "x"}])
@pytest.mark.parametrize("deep", [False, True])
def test_keys_that_run_code(bundle: Path, file: str, extra: dict[str, Any], deep: bool) -> None:
    path = bundle / file
    path.parent.mkdir(exist_ok=True)
    value = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**value, **({"sub": [{"x": extra}]} if deep else extra)}))
    with pytest.raises(RefusedError, match=next(iter(extra))):
        check_bundle(bundle)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":1,"a":2}', "[" * 5000, '{"x":"' + "y" * (1 << 20) + '"}'])
def test_a_config_that_is_no_json_object(bundle: Path, text: str) -> None:
    (bundle / "config.json").write_text(text)
    with pytest.raises(RefusedError, match=r"config\.json"):
        check_bundle(bundle)


def test_links_and_devices(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")

    def link(path: Path) -> None:
        path.symlink_to(tmp_path / "secret")

    def folder_link(path: Path) -> None:
        path.symlink_to(tmp_path)

    def dangling(path: Path) -> None:
        path.symlink_to(tmp_path / "nothing")

    makers: list[Callable[[Path], None]] = [link, folder_link, dangling, os.mkfifo]
    for make in makers:
        make(bundle / "strange")
        with pytest.raises(RefusedError, match=r"strange: a (symbolic link|device)"):
            read_bundle(bundle)
        (bundle / "strange").unlink()
    assert read_bundle(bundle)


def test_no_bundle_at_all(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        read_bundle(tmp_path / "nothing")
    with pytest.raises(UsageError):
        read_bundle(bundle / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RefusedError, match="empty"):
        read_bundle(tmp_path / "empty")
    (bundle / "config.json").unlink()
    with pytest.raises(RefusedError, match=r"config\.json is missing"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["Config.json", "caf\u00e9 cafe\u0301", "a\\b", "a:b", "line\nbreak", "\u202egpj.exe"])
def test_names_that_other_systems_read_otherwise(bundle: Path, name: str) -> None:
    for part in name.split(" "):
        (bundle / part).write_text("x")
    with pytest.raises(RefusedError):
        check_bundle(bundle)


def test_a_name_that_is_no_text(bundle: Path) -> None:
    os.close(os.open(os.fsencode(bundle) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(RefusedError, match="Unicode"):
        check_bundle(bundle)


def external_model(location: str, *, where: str = "initializer") -> bytes:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    inner = helper.make_graph([], "inner", [], [], [tensor])
    nodes = {
        "initializer": [],
        "attribute": [helper.make_node("Constant", [], ["w"], value=tensor)],
        "subgraph": [helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner)],
    }[where]
    graph = helper.make_graph(nodes, "g", [], [], [tensor] if where == "initializer" else [])
    data: bytes = helper.make_model(graph).SerializeToString()
    return data


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph"])
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "missing.data", "C:\\x", ""])
def test_weights_outside_the_bundle(bundle: Path, where: str, location: str) -> None:
    (bundle / "model.onnx").write_bytes(external_model(location, where=where))
    with pytest.raises(RefusedError, match="its weights"):
        check_bundle(bundle)


def test_weights_beside_the_model(bundle: Path) -> None:
    (bundle / "onnx").mkdir()
    (bundle / "onnx" / "model.onnx").write_bytes(external_model("model.onnx.data"))
    with pytest.raises(RefusedError, match="is missing"):
        check_bundle(bundle)
    (bundle / "onnx" / "model.onnx.data").write_bytes(bytes(8))
    assert "onnx/model.onnx.data" in check_bundle(bundle)


def test_the_reader_of_external_weights_agrees_with_onnx(bundle: Path) -> None:
    from slm_registry.bundles.onnxfile import external_locations

    model = onnx.load(str(bundle / "model.onnx"))
    onnx.save(model, str(bundle / "model.onnx"), save_as_external_data=True, location="weights.data", size_threshold=0)
    assert external_locations(bundle / "model.onnx") == {"weights.data"}
    assert "weights.data" in check_bundle(bundle)


@pytest.mark.parametrize("data", [b"", b"not onnx at all", b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x05\x2a"])
def test_what_is_no_onnx_file(bundle: Path, data: bytes) -> None:
    (bundle / "model.onnx").write_bytes(data)
    with pytest.raises(RefusedError, match="not a readable ONNX file"):
        check_bundle(bundle)


def test_an_onnx_file_of_nothing_but_tiny_fields_costs_little(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxfile, "MAX_MESSAGES", 10_000)
    (bundle / "model.onnx").write_bytes(b"\x3a\x00" * 500_000)
    tracemalloc.start()
    try:
        assert "model.onnx" in check_bundle(bundle)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        # A graph with a node that has but a name; a graph within graphs.
        for data in (b"\x3a\x05\x0a\x03\x1a\x01x", b"\x3a\x02\x0a\x00"):
            (bundle / "model.onnx").write_bytes(data * 20_000)
            with pytest.raises(RefusedError, match="more than 10000 messages"):
                check_bundle(bundle)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(0, 2))
def test_any_onnx_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int) -> None:
    from slm_registry.bundles.onnxfile import external_locations

    path = tmp_path_factory.getbasetemp() / "fuzzed.onnx"
    path.write_bytes(external_model("x")[: -cut or None] + data)
    with contextlib.suppress(RefusedError):
        assert all(isinstance(location, str) for location in external_locations(path))


def test_files_are_digested_by_chunk(bundle: Path) -> None:
    for file in read_bundle(bundle, chunk_size=100):
        data = (bundle / file.path).read_bytes()
        assert (file.size, file.digest) == (len(data), digest_of(data))
        ends = [min(start + 100, len(data)) for start in range(0, len(data), 100)]
        assert file.chunks == tuple(digest_of(data[:end])[7:] for end in ends)
