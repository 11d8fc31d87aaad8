"""Tiny models in torch and exported, each made once a test run whatever number of workers it has: an export takes seconds."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config import Task
from tests.sequence_bundles import side_folders
from tests.tiny_generators import CAUSAL, MAKERS


class MadeOnce:
    """Folders below one that all workers of a run share. Who wants to change what is in one takes a copy."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._torch: dict[str, Any] = {}
        self._digests: dict[Path, str] = {}

    def model(self, kind: str) -> tuple[Any, Path]:
        """A random model of an architecture in torch, in evaluation mode, and its folder with weights and ONNX files."""
        folder = self.folder(kind, lambda made: _export(kind, made))
        if kind not in self._torch:
            self._torch[kind] = _load(kind, folder)
        return self._torch[kind], folder

    def sides(self, task: Task) -> dict[str, Path]:
        """Bundles of a task, as tests.sequence_bundles.side_folders makes them."""
        folder = self.folder(task.type, lambda made: side_folders(made, task))
        return {name: folder / name for name in ("teacher", "student", "exported")}

    def altered(self) -> list[str]:
        """Folders that were handed out here and no longer hold the files that were made."""
        return [folder.name for folder, digest in self._digests.items() if _digest(folder) != digest]

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """The first worker that wants a folder makes it, others wait; nobody sees half of one."""
        folder, partial = self.root / name, self.root / f"{name}.partial"
        if folder in self._digests:
            return folder
        self.root.mkdir(exist_ok=True)
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # gone when the file is closed, however its process ends
            if not folder.exists():
                shutil.rmtree(partial, ignore_errors=True)
                make(partial)
                (self.root / f"{name}.digest").write_text(_digest(partial))
                partial.rename(folder)
        self._digests[folder] = (self.root / f"{name}.digest").read_text()
        return folder


def _export(kind: str, folder: Path) -> None:
    from pipelines.techniques.exporting_causal import export_causal
    from pipelines.techniques.exporting_seq2seq import export_seq2seq

    model = _load(kind, MAKERS[kind](folder, kind))
    if kind in CAUSAL:
        export_causal(model, folder / "model.onnx", 64)
    else:
        export_seq2seq(model, folder, 64)


def _load(kind: str, folder: Path) -> Any:
    import transformers as hf

    auto = hf.AutoModelForCausalLM if kind in CAUSAL else hf.AutoModelForSeq2SeqLM
    return auto.from_pretrained(folder).eval()


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = [f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
