"""`make bench-text-to-text PAIRS="folder ..."`: summarization and translation through dvc.yaml's own commands, from fresh weights, beside a trivial answer.

The trivial answer needs no model: a text's first sentence as its summary, a sentence itself as its translation.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chain import recipe_for, run
from benchmarks.pages import load, machine, write_section
from pipelines.environment import disable_telemetry, quiet_libraries

STAGES = ("validate", "teach", "label", "distill", "explore", "prune", "quantize", "evaluate", "gate")
#: What stands in a row: key of metrics.json -> its heading and its factor.
COLUMNS = {"rouge_1": ("ROUGE-1", 100), "rouge_2": ("ROUGE-2", 100), "rouge_l": ("ROUGE-L", 100)}
COLUMNS |= {
    "chrf": ("chrF", 1),
    "bleu": ("BLEU", 1),
    "exact_match": ("exact, %", 100),
    "repetition": ("repeated, %", 100),
}


def first_sentence(text: str) -> str:
    """Up to the first stop that a space and a capital follow."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text.strip(), maxsplit=1)[0]


def itself(text: str) -> str:
    """The text."""
    return text


@dataclass(frozen=True)
class Trial:
    """One data folder: what it is for, and the trivial answer."""

    task: str
    trivial: str
    answer: Callable[[str], str]


TRIALS = {
    "scitldr_abstract": Trial("an abstract to one sentence", "first sentence", first_sentence),
    "tatoeba_en_de": Trial("English to German", "the English itself", itself),
}


def trivial_scores(trial: Trial, clean: Path, recipe: Mapping[str, Any]) -> dict[str, float]:
    """The trivial answer on the rows that `evaluate` asked, by the same measures."""
    from pipelines.data.clean import load_clean
    from pipelines.sequences.prompts import spread
    from pipelines.techniques import text_metrics

    test = load_clean(clean).test
    rows = spread(len(test.texts), recipe["evaluate"]["rows"])
    answers, wanted = [trial.answer(test.texts[row]) for row in rows], [test.targets[row] for row in rows]
    return {
        **{name: float(values.mean()) for name, values in text_metrics.rouge(answers, wanted).items()},
        "chrf": text_metrics.chrf(text_metrics.chrf_counts(answers, wanted).sum(axis=0)),
        "bleu": text_metrics.bleu(answers, wanted),
        "exact_match": float(text_metrics.exact_matches(answers, wanted).mean()),
        "repetition": text_metrics.repetition(answers),
    }


def section(
    name: str, trial: Trial, made: Path, trivial: Mapping[str, float], seconds: Mapping[str, float]
) -> list[str]:
    """One data folder's table, and what the published model answers."""
    metrics = json.loads((made / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    asked, total = metrics["run"]["asked_rows"], sum(seconds.values()) / 60
    lines = [
        f"## {name}: {trial.task}",
        "",
        f"{asked} of {metrics['run']['test_rows']} test rows answered; the whole chain took {total:.1f} minutes, {seconds['teach'] / 60:.1f} of them the teacher's, {seconds['distill'] / 60:.1f} the student's.",
        "",
        "| answers from | MB | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " | bits a byte |",
        "|---" * (len(COLUMNS) + 3) + "|",
        _line(trial.trivial, "0", trivial),
        _line("teacher, torch", _megabytes(metrics["teacher"]), metrics["teacher"]),
        _line("published model", _megabytes(metrics["model"]), metrics["model"]),
        "",
    ]
    return lines + examples(made)


def _line(name: str, size: str, numbers: Mapping[str, float]) -> str:
    cells = [f"{numbers[key] * factor:.1f}" for key, (_, factor) in COLUMNS.items()]
    bits = f"{numbers['bits_per_byte']:.2f}" if "bits_per_byte" in numbers else ""
    return f"| {name} | {size} | {' | '.join(cells)} | {bits} |"


def _megabytes(numbers: Mapping[str, float]) -> str:
    return f"{numbers['bytes'] / 1e6:.1f}"


def examples(made: Path, count: int = 3) -> list[str]:
    """The first test rows, what is wanted, and what the published model answers."""
    from slm_registry import TextToText

    from pipelines.data.clean import load_clean

    test = load_clean(made / "data").test
    model = TextToText.from_folder(made / "bundle")
    answers = model.generate(test.texts[:count], max_new_tokens=40, truncate=True)
    lines = ["| text | wanted | published model |", "|---|---|---|"]
    for text, wanted, answer in zip(test.texts, test.targets, answers, strict=False):
        cells = (one if len(one) < 90 else one[:90] + " …" for one in (text, wanted, answer.text))
        lines.append("| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |")
    return [*lines, ""]


def main(argv: Sequence[str]) -> int:
    """Build every data folder, measure, write the section."""
    disable_telemetry()
    quiet_libraries()
    import yaml

    from benchmarks.chain import RECIPES

    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_to_text", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help=f"folders: {', '.join(TRIALS)}")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder to build in; a run that was cut off goes on there"
    )
    parser.add_argument("--page", type=Path, required=True, help="the page that the tables go to")
    given = parser.parse_args(argv)
    unknown = [folder.name for folder in given.data if folder.resolve().name not in TRIALS]
    if unknown:
        parser.error(f"{unknown[0]}: no recipe for it; there are {', '.join(TRIALS)}")
    recipes = yaml.safe_load(RECIPES.read_text(encoding="utf-8"))
    for folder in given.data:
        name, before = folder.resolve().name, load()
        work = given.work / name
        seconds = run(name, recipe_for(name, folder), work, STAGES)
        made = work / "build" / name
        trivial = trivial_scores(TRIALS[name], made / "data", recipes[name])
        lines = section(name, TRIALS[name], made, trivial, seconds)
        lines.insert(2, f"{machine()}; {before} at the start. Written by `make bench-text-to-text`.")
        write_section(given.page, name, "\n".join(lines))
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
