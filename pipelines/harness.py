"""`python -m pipelines.harness FOLDER --tasks NAME,NAME --out FILE`: tasks of lm-evaluation-harness on a text generator of the factory's.

The folder is a bundle in torch (teacher, student) or an exported one; the tasks are the harness' own, or YAML files in `--include`. Apart
from the stages: the harness' tasks take their data from the hub. Needs the dependency group `harness`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM

from pipelines.bundle import write_json
from pipelines.environment import disable_telemetry, quiet_libraries
from pipelines.errors import FactoryError, ModelError
from pipelines.families.batching import MODEL_FILE
from pipelines.families.sequences import Example
from pipelines.sequences.generators import generation_task
from pipelines.sequences.sides import SequenceSide, exported_side, torch_side

#: Tokens that an answer may have where its task names no number.
NEW_TOKENS = 256


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A side as the harness sees models: it scores continuations and writes."""

    def __init__(self, side: SequenceSide, max_length: int) -> None:
        super().__init__()
        self.tokenizer = side.tokenizer
        self._side, self._max_length = side, max_length

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text, and stands before the first."""
        return int(self.tokenizer.eos_token_id)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids; the harness itself puts a token before what begins with none."""
        return list(self.tokenizer(string, add_special_tokens=False)["input_ids"])

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether it is what the model would write; of a long context only the end counts."""
        examples = []
        for _, context, continuation in requests:
            if not 0 < len(continuation) < self._max_length:
                raise ModelError(
                    f"a continuation of {len(continuation)} tokens; it needs 1 to {self._max_length - 1} (task.max_length)"
                )
            ids = [*context, *continuation][-self._max_length :]
            first = len(ids) - len(continuation)
            examples.append(Example(ids, range(first - 1, len(ids) - 1), continuation))
        found = self._side.look(examples)
        ends = np.cumsum([len(example.classes) for example in examples])[:-1]
        greedy = np.split(found.likeliest == found.truth, ends)
        return [
            (-float(nats.sum()), bool(same.all()))
            for nats, same in zip(np.split(found.nats, ends), greedy, strict=True)
        ]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in blocks that begin with the token which ended the one before."""
        totals = []
        for request in requests:
            ids = [self.eot_token_id, *self.tok_encode(request.args[0])]
            step = self._max_length - 1
            blocks = [ids[start : start + self._max_length] for start in range(0, max(len(ids) - 1, 1), step)]
            examples = [Example(block, range(len(block) - 1), block[1:]) for block in blocks]
            totals.append(-float(self._side.look(examples).nats.sum()))
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The likeliest continuation of each prompt, cut before the first of the task's stop strings."""
        answers = []
        for request in requests:
            prompt, settings = request.args
            stops = settings.get("until") or []
            wanted = min(settings.get("max_gen_toks", NEW_TOKENS), self._max_length - 1)
            kept = self.tok_encode(prompt)[-(self._max_length - wanted) :]
            text = self._side.write([self.tokenizer.decode(kept)], wanted)[0].text
            for stop in [stops] if isinstance(stops, str) else stops:
                text = text.split(stop)[0] if stop else text
            answers.append(text)
        return answers


def harness_results(folder: Path, tasks: Sequence[str], include: Path | None, limit: int | None) -> dict[str, Any]:
    """The harness' numbers by task. Raises ModelError for a folder that is no text generator, or a task that does not exist."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    task = generation_task(folder)
    manager = TaskManager(include_path=str(include) if include else None)
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown:
        raise ModelError(
            f"--tasks: lm-evaluation-harness has no {', '.join(unknown)}; name a folder of YAML files by --include"
        )
    load = exported_side if (folder / MODEL_FILE).exists() else torch_side
    model = HarnessModel(load(folder, task.threads, task), task.max_length)
    found = lm_eval.simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager, limit=limit, log_samples=False, random_seed=task.seed
    )
    results: dict[str, Any] = found["results"]
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, write the results as JSON."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.harness", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="a bundle: build/MODEL/teacher, build/MODEL/bundle ...")
    parser.add_argument("--tasks", required=True, help="names, with commas between")
    parser.add_argument("--include", type=Path, help="a folder of task files")
    parser.add_argument("--limit", type=int, help="rows a task; all where not given")
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    given = parser.parse_args(argv)
    disable_telemetry()
    quiet_libraries()
    try:
        write_json(given.out, harness_results(given.folder, given.tasks.split(","), given.include, given.limit))
    except FactoryError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
