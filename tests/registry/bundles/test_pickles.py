"""Pickles under any name: what a loader would run is seen, however it is wrapped; other files are left alone."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import string
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import RefusedError
from slm_registry.bundles.contents import _code_inside, check_bundle
from slm_registry.bundles.pickles import MAX_OPCODES, calls_something

LOUD = b"c" + __name__.encode() + b"\nrun\n"
CALL = LOUD + b"(S'x'\ntR"
ran: list[str] = []


def run(text: str = "") -> None:
    ran.append(text)


ATTACKS = {
    "an unknown opcode after the call": CALL + b"\xff",
    "a name that is none after the call": CALL + b"c1-\n2-\n.",
    "a name that is none before the call": b"cno-such\n-\n0" + CALL,
    "the call behind a long text": b"X" + struct.pack("<I", 70_000) + b"a" * 70_000 + b"0" + CALL,
    "the call behind a long line": b"V" + b"a" * 3_000_000 + b"\n0" + CALL,
    "the call behind many opcodes": b"N0" * 40_000 + CALL,
    "a number as C writes it": b"I0x10\n0" + CALL,
    "bytes in a string": b"S'\\xff'\n0" + CALL,
    "inst": b"(S'x'\ni" + LOUD[1:],
    "obj": b"(" + LOUD + b"S'x'\no\xff",
    "by the stack": b"V" + __name__.encode() + b"\nVrun\n\x93(S'x'\ntR\xff",
    "by a mark that is taken away": b"(0" + CALL,
    "remembered": LOUD + b"p7\n0Ng7\n(S'x'\ntR\xff",
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_whatever_a_loader_would_run_is_seen(bundle: Path, kind: str) -> None:
    (bundle / "scaler.dat").write_bytes(ATTACKS[kind])
    with pytest.raises(RefusedError, match=r"scaler\.dat: it is a pickle"):
        check_bundle(bundle)


@pytest.mark.parametrize("kind", [kind for kind in ATTACKS if "before" not in kind])
def test_these_attacks_are_real(kind: str) -> None:
    ran.clear()
    with contextlib.suppress(Exception):
        pickle.loads(ATTACKS[kind], encoding="latin-1")
    assert ran == ["x"]


def test_more_opcodes_than_are_followed() -> None:
    assert calls_something(io.BytesIO(b"N0" * MAX_OPCODES))
    assert not calls_something(io.BytesIO(b"N0" * (MAX_OPCODES // 2) + b"\xff"))


@given(st.data())
def test_any_prefix_that_a_loader_survives_hides_nothing(data: st.DataObject) -> None:
    pieces = [
        "N0",
        "]0",
        "(NNt0",
        "(1",
        "I1\n0",
        "Va\n0",
        "K\x010",
        "}p1\n0",
        "]q\x020",
        "(lp3\n0",
        "N20",
        "((K\x01N10",
    ]
    hidden = "".join(data.draw(st.lists(st.sampled_from(pieces), max_size=30))).encode("latin-1") + CALL
    hidden += data.draw(st.binary(max_size=20))
    ran.clear()
    with contextlib.suppress(Exception):
        pickle.loads(hidden)
    assert calls_something(io.BytesIO(hidden)) or not ran


def published() -> Iterator[tuple[str, bytes]]:
    """What a bundle holds, in small."""
    array = io.BytesIO()
    np.save(array, np.arange(9, dtype=np.float32))
    yield "weights.npy", array.getvalue()
    for size in (40, 67, 93, 99, 128, 0x4E28, 0x7D5D):
        header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(size)
        yield f"{size}.safetensors", len(header).to_bytes(8, "little") + header + bytes(8)
    yield "logo.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(40)
    yield "zeros.data", b"\x80" * 400_000
    yield "page.html", b"<!doctype html>\n<title>x</title>\n"
    yield "card.md", b"---\ntags: [x]\n---\n# card\ncan be\nread\n"
    yield "list.md", b"(i)\n(ii)\n(iii)\n"
    yield "numbers.csv", b"1,2\n3,4\n"
    yield "lines.json", b'["a"]\n'
    yield "labels.txt", b"cancel\nchange\nback\nrefund\n"
    yield "words.txt", b"cat\ndog\nhabit\nIce\nRabbit\n"
    yield "merges.txt", b"#version: 0.2\nt h\n"


@pytest.mark.parametrize(("name", "content"), list(published()))
def test_what_a_bundle_holds_is_no_pickle(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    assert name in check_bundle(bundle)


def test_lists_of_words_are_no_pickles() -> None:
    draw = random.Random(5)
    for _ in range(3000):
        words = ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(1, 8))) for _ in range(30)]
        assert not calls_something(io.BytesIO("\n".join(words).encode())), words


def test_sources_are_no_pickles() -> None:
    for path in Path(string.__file__).parent.glob("*.py"):
        assert _code_inside(io.BytesIO(path.read_bytes())) is None, path


@given(st.binary(max_size=400))
def test_any_bytes_are_followed_to_an_end(data: bytes) -> None:
    calls_something(io.BytesIO(data))
