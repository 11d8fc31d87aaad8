"""Bundles that travel as one stream: what comes out is what went in, and nothing is written that a sender may not."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from slm_registry import CorruptError, RefusedError
from slm_registry.bundles.packed import REQUEST, pack, unpack

from tests.registry.helpers import make_bundle

TEXTS = ["where is my parcel", "two\nlines", "東京"]


@pytest.fixture
def stream(bundle: Path) -> bytes:
    buffer = io.BytesIO()
    pack({name: sorted(bundle.iterdir()) for name in ("1-b", "0-a")}, TEXTS, buffer)
    return buffer.getvalue()


def test_there_and_back(bundle: Path, stream: bytes, tmp_path: Path) -> None:
    folders, texts = unpack(io.BytesIO(stream), tmp_path / "far")
    assert texts == TEXTS
    assert [folder.name for folder in folders] == ["1-b", "0-a"]
    for folder in folders:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            path.name: path.read_bytes() for path in bundle.iterdir()
        }


def test_a_link_is_sent_as_the_file_it_leads_to(bundle: Path, tmp_path: Path) -> None:
    (bundle / "linked.onnx").symlink_to(bundle / "model.onnx")
    buffer = io.BytesIO()
    pack({"a": [bundle / "linked.onnx"]}, TEXTS, buffer)
    buffer.seek(0)
    (folder,), _ = unpack(buffer, tmp_path / "far")
    assert not (folder / "linked.onnx").is_symlink()
    assert (folder / "linked.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()


def test_a_stream_that_ends_early_is_refused_wherever_it_ends(stream: bytes, tmp_path: Path) -> None:
    # Two blocks of zeros end a tar; what is cut of them, and of the padding behind, is no loss.
    end = len(stream.rstrip(b"\0"))
    for at, cut in enumerate(range(0, end, 509)):
        with pytest.raises(CorruptError, match=r"standard input|request\.json"):
            unpack(io.BytesIO(stream[:cut]), tmp_path / str(at))


def member(name: str, **settings: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in settings.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("../outside"), "outside.*is not allowed"),
        (member("a/../../outside"), "outside.*is not allowed"),
        (member("/outside"), "absolute"),
        (member("a/config.json"), "one file on some file systems"),
        (member("A/config.json"), "one file on some file systems"),
        (member("a/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "no plain file"),
        (member("a/hard", type=tarfile.LNKTYPE, linkname="a/config.json"), "no plain file"),
        (member("a/pipe", type=tarfile.FIFOTYPE), "no plain file"),
        (member("a/folder", type=tarfile.DIRTYPE), "no plain file"),
        (member("a/sparse", type=tarfile.GNUTYPE_SPARSE), "no plain file"),
    ],
    ids=lambda value: f"{value.name}-{value.type!r}" if isinstance(value, tarfile.TarInfo) else "",
)
def test_what_a_sender_may_not(bad: tarfile.TarInfo, message: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(member("a/config.json"))
        archive.addfile(bad)
    buffer.seek(0)
    with pytest.raises(RefusedError, match=message):
        unpack(buffer, tmp_path / "far")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["config.json"]


def without_folders(request: dict[str, object]) -> None:
    request["folders"] = []


def with_another(request: dict[str, object]) -> None:
    request["folders"] = ["a", "../a"]


def with_a_list(request: dict[str, object]) -> None:
    request["folders"] = [["a"]]


def without_texts(request: dict[str, object]) -> None:
    request["texts"] = []


def with_numbers(request: dict[str, object]) -> None:
    request["texts"] = ["one", 2]


@pytest.mark.parametrize("change", [without_folders, with_another, with_a_list, without_texts, with_numbers])
def test_a_request_that_cannot_be_meant(change: Callable[[dict[str, object]], None], tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    request: dict[str, object] = {"folders": ["a"], "texts": TEXTS}
    change(request)
    (tmp_path / "bundle" / REQUEST).write_text(json.dumps(request))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(tmp_path / "bundle" / "config.json", "a/config.json")
        archive.add(tmp_path / "bundle" / REQUEST, REQUEST)
    buffer.seek(0)
    with pytest.raises(CorruptError, match=r"request\.json: "):
        unpack(buffer, tmp_path / "far")
