"""The peers on the board: given the same data and teacher, built one after the other, and served beside the other systems."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.peers.processes import Peer, build, serving
from benchmarks.peers.served import Job
from benchmarks.systems import THREADS, System
from pipelines.bundle import DOCUMENTS
from pipelines.data.clean import CleanData
from pipelines.sources import fetch_pretrained

#: Peers that do without the teacher: they begin where it began, and its fine-tuning is no part of what they cost.
WITHOUT_TEACHER = ("model2vec", "setfit")
#: Peer -> the packages that it is, and what was done with them, as their documentation does it.
ABOUT = {
    "model2vec": (
        ("model2vec",),
        "static embeddings distilled from the pretrained encoder, a classifier trained on them, run by numpy: 256 dimensions in float16 or int8, and 64 in int8",
    ),
    "olive": (
        ("olive-ai", "onnxruntime"),
        "the teacher through conversion, transformer fusion and dynamic int8 or blocks of 4 bits, run by ONNX Runtime",
    ),
    "openvino": (
        ("nncf", "openvino"),
        "the teacher quantized to int8 with 300 training texts to calibrate on, run by OpenVINO",
    ),
    "setfit": (
        ("setfit",),
        "the pretrained encoder tuned on pairs of training texts, distilled into three of its layers by DistillationTrainer, run by torch",
    ),
}
ABSENT = (
    "Not here: neural-compressor 3.10 installs, but what it makes for a processor is a torch graph in memory that torch.compile "
    "builds with a C++ compiler wherever it runs, so there is no file to download, weigh and time."
)


@contextmanager
def peer_systems(
    pythons: Mapping[str, Path], recipe: Mapping[str, Any], data: CleanData, teacher: System, folder: Path, work: Path
) -> Iterator[list[System]]:
    """Every system of the peers whose interpreters are given, alive as long as the context.

    `folder` is the fine-tuned teacher's, `work` is empty. Raises PeerError where a peer fails; nothing is left out.
    """
    job = _job(recipe, data, folder, work)
    with ExitStack() as stack:
        systems = []
        for name, python in pythons.items():
            peer = Peer(name, python, work.resolve() / name)
            own = replace(job, out=str(peer.work / "systems"))
            Path(own.out).mkdir(parents=True)
            seconds = build(peer, own)
            before = 0.0 if name in WITHOUT_TEACHER else teacher.build_s
            served = stack.enter_context(serving(peer, replace(own, threads=THREADS)))
            systems += [
                System(system, predict, _bytes(Path(own.out) / system), before + seconds[system])
                for system, predict in served.items()
            ]
        yield systems


def _job(recipe: Mapping[str, Any], data: CleanData, teacher: Path, work: Path) -> Job:
    work.mkdir(parents=True)
    files = {}
    for split in ("train", "validation"):
        rows = getattr(data, split)
        lines = [
            json.dumps({"text": text, "label": label}) for text, label in zip(rows.texts, rows.labels, strict=True)
        ]
        files[split] = work / f"{split}.jsonl"
        files[split].write_text("\n".join(lines) + "\n", encoding="utf-8")
    task, teach = recipe["task"], recipe["teach"]
    return Job(
        train=str(files["train"].resolve()),
        validation=str(files["validation"].resolve()),
        labels=data.labels,
        teacher=str(teacher.resolve()),
        body=str(fetch_pretrained(teach["source"], teach["sha256"]).resolve()),
        out="",
        threads=task["threads"],
        seed=task["seed"],
        max_length=task["max_length"],
    )


def _bytes(folder: Path) -> int:
    """As pipelines.bundle.download_bytes, of folders in folders too."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name not in DOCUMENTS)


def notes(names: Sequence[str]) -> list[str]:
    """What was done with each peer, and in which version, and which could not be had; lines of Markdown."""
    lines = [f"* {', '.join(_pins(name))}: {ABOUT[name][1]}." for name in names]
    return ["Peers, each in an environment of its own:", "", *lines, "", ABSENT, ""] if lines else []


def _pins(name: str) -> list[str]:
    lines = (peers.HERE / name / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.replace("==", " ") for line in lines if line.partition("==")[0] in ABOUT[name][0]]
