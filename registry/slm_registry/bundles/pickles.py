"""Whether bytes are a pickle that would call something: its opcodes are followed as a loader would, and never run.

A loader runs what it reads at once: what comes after a call, were it nonsense, takes nothing back. Where loaders differ
(numbers in text, marks below what is popped), the laxest one is followed.
"""

from __future__ import annotations

import os
import pickletools
import re
from collections.abc import Iterator
from typing import BinaryIO

# So many opcodes from its start on make a file a pickle, whatever they do: nothing else begins so.
MAX_OPCODES = 100_000
_LINE = 1 << 16
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_NAMES = {"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
# STOP calls nothing, but what a whole pickle names was imported.
_CALLS = {"REDUCE", "BUILD", "INST", "NEWOBJ", "NEWOBJ_EX", "OBJ", "STOP"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_IN_TEXT = {"INT", "LONG", "FLOAT", "GET", "PUT"}
_NUMBER = re.compile(rb"\d|inf|nan", re.IGNORECASE)
_WELL_NAMED = re.compile(rb"[\w\x80-\xff][\w.\x80-\xff-]*\n[\w\x80-\xff][\w.\x80-\xff-]*\n?")
# The bytes of a length, where an argument begins with one, and whether it has a sign.
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}
# Protocol: there are 0 to 5, and a loader refuses those it does not know.
_NEWEST = 15


def calls_something(file: BinaryIO) -> bool:
    """Whether a file begins as a pickle that loads something by name and calls it, or is whole and has loaded it.

    Takes little memory whatever the file's size; true too where more than `MAX_OPCODES` opcodes stand there.
    """
    machine = _Machine()
    for count, (opcode, argument) in enumerate(_opcodes(file)):
        if count == MAX_OPCODES:
            return True
        if not machine.step(opcode, argument):
            break
    return machine.called


class _Machine:
    """As much of a loader's state as tells whether it fails: how high the stack is, where marks are in it."""

    def __init__(self) -> None:
        self.called = False
        self._named = False
        self._remembers = False
        self._height = 0
        self._marks: list[int] = []

    def step(self, opcode: pickletools.OpcodeInfo, argument: bytes) -> bool:
        """Whether the loader goes on after this opcode."""
        name = opcode.name
        if name in _GETS and not self._remembers:
            return False
        self._remembers |= name in _PUTS
        if not self._pop(opcode):
            return False
        self._height += sum(item is not pickletools.markobject for item in opcode.stack_after)
        if name == "MARK":
            self._marks.append(self._height)
        self._named |= name in _NAMES and (
            name not in ("GLOBAL", "INST") or _WELL_NAMED.fullmatch(argument) is not None
        )
        self.called = self._named and name in _CALLS
        return not self.called and name != "STOP"

    def _pop(self, opcode: pickletools.OpcodeInfo) -> bool:
        """Take what an opcode takes from the stack. False where that is not there."""
        wanted = opcode.stack_before
        if pickletools.markobject in wanted:
            if not self._marks:
                return False
            mark = self._marks.pop()
            # Above its mark OBJ finds the class, and arguments if any.
            if opcode.name == "OBJ" and self._height <= mark:
                return False
            self._height = min(mark, self._height)
            wanted = wanted[: wanted.index(pickletools.markobject)]
        elif opcode.name == "POP" and self._marks and self._marks[-1] >= self._height:
            self._marks.pop()
            return True
        self._height -= len(wanted)
        return self._height >= 0


def _opcodes(file: BinaryIO) -> Iterator[tuple[pickletools.OpcodeInfo, bytes]]:
    """The opcodes of a file, each with the bytes of its argument where that is of lines; ends where none follows."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    while byte := file.read(1):
        opcode = _OPCODES.get(byte)
        if opcode is None:
            return
        argument, length = b"", opcode.arg.n if opcode.arg else 0
        if length == pickletools.UP_TO_NEWLINE:
            argument = _line(file) + (_line(file) if opcode.name in ("GLOBAL", "INST") else b"")
            if opcode.name in _IN_TEXT and not _NUMBER.search(argument):
                return
        else:
            if length in _LENGTHS:
                width, signed = _LENGTHS[length]
                length = int.from_bytes(file.read(width), "little", signed=signed)
            if not 0 <= length <= size - file.tell():
                return
            if opcode.name == "PROTO":
                argument = file.read(length)
                if argument[0] > _NEWEST:
                    return
            else:
                file.seek(length, os.SEEK_CUR)
        yield opcode, argument


def _line(file: BinaryIO) -> bytes:
    """The start of a line; the file is after its end then."""
    start = part = file.readline(_LINE)
    while part and not part.endswith(b"\n"):
        part = file.readline(_LINE)
    return start
