"""The machine that a measurement ran on: what decides how fast onnxruntime computes there."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from slm_registry.plumbing.printable import counted

#: As the kernel writes them -> as they are known. onnxruntime has kernels of its own for each of these.
INSTRUCTIONS = {
    "avx2": "avx2",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "amx_int8": "amx_int8",
    "neon": "neon",  # 32-bit
    "asimd": "neon",  # 64-bit
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve": "sve",
}


@dataclass(frozen=True)
class Machine:
    """A processor by name, the cores that this process may use, its instructions (None: the system does not tell), and onnxruntime's version."""

    processor: str
    architecture: str
    cores: int
    instructions: tuple[str, ...] | None
    onnxruntime: str

    def __str__(self) -> str:
        told = "unknown" if self.instructions is None else " ".join(self.instructions) or "none of note"
        return f"{self.processor}, {counted(self.cores, 'core')}, instructions {told}, onnxruntime {self.onnxruntime}"


def this_machine() -> Machine:
    """The machine that runs this process."""
    # Asked for by name: importing onnxruntime takes longer than all else here.
    from importlib.metadata import version

    told = _read(Path("/proc/cpuinfo"))
    # A container is seldom given all cores.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    board = _read(Path("/proc/device-tree/model")).strip("\0\n ")
    name = processor_of(told) or board or platform.processor() or platform.machine()
    return Machine(name, platform.machine(), cores, instructions_of(told), version("onnxruntime"))


def processor_of(cpuinfo: str) -> str:
    """The processor's name in the text of /proc/cpuinfo, empty where it has none, as on most ARM boards."""
    found = re.search(r"^model name\s*:\s*(.+?)\s*$", cpuinfo, flags=re.MULTILINE)
    return found[1] if found else ""


def instructions_of(cpuinfo: str) -> tuple[str, ...] | None:
    """Those of the instructions above that the text of /proc/cpuinfo names; None where it names none of any kind."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, flags=re.MULTILINE)
    if found is None:
        return None
    flags = set(found[1].split())
    return tuple(dict.fromkeys(name for flag, name in INSTRUCTIONS.items() if flag in flags))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
