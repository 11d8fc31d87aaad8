"""Models that answer token by token on a front: those that continue texts, whose times are of a token, and taggers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_registry.runtime.timing import Tokens

from pipelines.bundle import LINEAGE, write_json
from pipelines.config import AnySearch, Task, TokenSearch, WriterSearch
from pipelines.exploring.parts import Parts
from pipelines.exploring.sides import Judge
from pipelines.exploring.targets import Questions
from pipelines.exploring.token_models import TokenParts
from pipelines.exporting import save_beside
from pipelines.sequences.exporting import save_generation, shrink
from pipelines.sequences.prompts import prompts_of
from pipelines.sequences.quality import counts_of
from pipelines.sequences.sides import SequenceSide, exported_side, torch_side
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class TokenSides:
    """See Sides in exploring/sides.py."""

    task: Task

    def questions(self, parts: Parts, rows: Sequence[int], settings: AnySearch) -> Questions:
        texts = [parts.data.validation.texts[row] for row in rows]
        if not isinstance(settings, WriterSearch):
            return Questions(texts, None)
        return Questions(prompts_of(texts, settings.prompt_tokens, parts.whole.tokenizer), settings.new_tokens)

    def export(self, parts: Parts, part: Slice, folders: Mapping[str, Path], settings: AnySearch) -> None:
        assert isinstance(settings, TokenSearch) and isinstance(parts, TokenParts)
        bundle, task, family, examples = parts.plain(part), self.task, parts.family, parts.examples
        whole = next(iter(folders.values())).with_suffix(".float32")
        whole.mkdir()
        names = family.export(bundle, whole, task.max_length)
        family.check_export(bundle, whole, examples, settings.parity)
        for name, out in folders.items():
            out.mkdir()
            copy = shutil.copytree(whole, whole.with_suffix(".copy"))  # float32 files are moved
            shrink(family, bundle, copy, names, out, examples, task, settings.quantizations[name])
            shutil.rmtree(copy)
            save_generation(bundle, out)
            save_beside(bundle, out)
            write_json(out / LINEAGE, bundle.lineage)
        shutil.rmtree(whole)

    def exported(self, folder: Path, threads: int) -> Judge:
        return self._judge(exported_side(folder, threads, self.task))

    def teacher(self, folder: Path, threads: int) -> tuple[Judge, Callable[[Questions], Callable[[list[str]], Any]]]:
        side = torch_side(folder, threads, self.task)

        def timed(questions: Questions) -> Callable[[list[str]], Any]:
            def answer(texts: list[str]) -> object:
                written = side.write(texts, questions.new_tokens or 1)
                return written if questions.new_tokens is None else Tokens(sum(one.tokens for one in written))

            return answer

        return self._judge(side), timed

    def _judge(self, side: SequenceSide) -> Judge:
        return lambda split: counts_of(self.task, split, side.predict(split))
