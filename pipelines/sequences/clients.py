"""What answers texts on each side. The exported side imports no more than its users' own process would: its memory is measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.config import Task
from pipelines.techniques.span_metrics import told
from pipelines.techniques.writing_speed import Writer, Written

#: (folder, threads, task) -> what answers.
WriterLoader = Callable[[Path, int, Task], Writer]


def torch_writer(folder: Path, threads: int, task: Task) -> Writer:
    """A bundle of the factory's in torch."""
    from pipelines.sequences.sides import torch_side

    return torch_side(folder, threads, task).write


def exported_writer(folder: Path, threads: int, task: Task) -> Writer:
    """An exported bundle through slm_registry, as a downstream team calls it."""
    writers: dict[str, WriterLoader] = {
        "text-generation": _generator,
        "text-to-text": _answerer,
        "token-classification": _tagger,
    }
    return writers[task.type](folder, threads, task)


def answering(
    folder: Path, threads: int, *, load: WriterLoader, task: Task, new_tokens: int
) -> Callable[[list[str]], object]:
    """What answers texts with at most `new_tokens` tokens."""
    return partial(load(folder, threads, task), new_tokens=new_tokens)


def _generator(folder: Path, threads: int, task: Task) -> Writer:
    from slm_registry import TextGenerator

    return partial(_generated, TextGenerator.from_folder(folder, threads=threads))


def _answerer(folder: Path, threads: int, task: Task) -> Writer:
    from slm_registry import TextToText

    return partial(_generated, TextToText.from_folder(folder, threads=threads, max_length=task.max_length))


def _generated(model: Any, texts: list[str], new_tokens: int) -> list[Written]:
    """A text that is too long is cut, as in training. An end token is a step of work too, though it is not among the tokens."""
    answers = model.generate(texts, max_new_tokens=new_tokens, truncate=True)
    return [Written(one.text, len(one.token_ids) + (one.finish_reason == "end")) for one in answers]


def _tagger(folder: Path, threads: int, task: Task) -> Writer:
    from slm_registry import TokenClassifier

    return partial(_tagged, TokenClassifier.from_folder(folder, threads=threads, max_length=task.max_length))


def _tagged(model: Any, texts: list[str], new_tokens: int) -> list[Written]:
    return [
        Written(told((span.label, " ".join(span.text.split())) for span in spans), len(text.split()))
        for text, spans in zip(texts, model.predict(texts), strict=True)
    ]
