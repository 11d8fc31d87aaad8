"""Just enough of protobuf to find where an ONNX file keeps tensors outside itself, without the onnx package."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from slm_registry.errors import RefusedError
from slm_registry.plumbing.files import open_regular, os_errors

MAX_NESTING = 64
# Some ten times what the largest models have.
MAX_MESSAGES = 4_000_000
_EXTERNAL = "external_data"
# message: field number -> the message in it. Only what can lead to a tensor; numbers are those of onnx.proto.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: _EXTERNAL},
}


def external_locations(path: Path) -> set[str]:
    """The `location` of every external tensor of an ONNX file. Raises RefusedError where it is no ONNX file."""
    with os_errors("read", path), open_regular(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                return _locations(view)
        except (ValueError, IndexError) as error:
            raise RefusedError(f"{path.name}: not a readable ONNX file: {error}; export it again") from error


def _locations(view: memoryview) -> set[str]:
    found: set[str] = set()
    messages = 0
    # The messages that are being read, each within the one before it.
    stack = [("model", _byte_fields(view, 0, len(view)))]
    while stack:
        message, fields = stack[-1]
        for number, first, last in fields:
            below = _MESSAGES[message].get(number)
            if below == _EXTERNAL:
                location = _location(view, first, last)
                if location is not None:
                    found.add(location)
            elif below is not None and first < last:
                messages += 1
                if len(stack) > MAX_NESTING or messages > MAX_MESSAGES:
                    raise ValueError(f"more than {MAX_NESTING} levels or more than {MAX_MESSAGES} messages")
                stack.append((below, _byte_fields(view, first, last)))
                break
        else:
            stack.pop()
    return found


def _location(view: memoryview, start: int, end: int) -> str | None:
    """The value of a key-value pair whose key is `location`."""
    pair = {number: bytes(view[first:last]) for number, first, last in _byte_fields(view, start, end)}
    return pair.get(2, b"").decode("utf-8") if pair.get(1) == b"location" else None


def _byte_fields(view: memoryview, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each length-delimited field of the message in view[position:end]."""
    while position < end:
        tag, position = _varint(view, position, end)
        number, kind = tag >> 3, tag & 7
        if kind == 2:
            size, position = _varint(view, position, end)
            yield number, position, position + size
            position += size
        elif kind == 0:
            _, position = _varint(view, position, end)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position > end or number == 0:
            raise ValueError(f"a field runs over its message at byte {position}")


def _varint(view: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number is cut off or too long at byte {position}")
