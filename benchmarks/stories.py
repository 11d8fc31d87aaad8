"""`make bench-stories STORIES=...`: a real checkpoint (stories260K) through the whole factory on its own generations.

Runs dvc.yaml's own commands: validate to prune once, then quantize and evaluate for each width of the table; and the whole way for a
student that is cut. Perplexities come from the published bundles through slm_registry, as a user has them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.chain import recipe_for, run
from pipelines.environment import disable_telemetry, quiet_libraries

NAME, SMALL = "stories260k", "stories260k-small"
TEXTS, TOKENS, SEED = 512, 480, 17
STORY_TOKENS = 200
FIRST, LAST = ("validate", "teach", "label", "distill", "explore", "prune"), ("quantize", "evaluate", "gate")
_BLOCKS: dict[str, Any] = {
    "technique": "blockwise",
    "parity": 1e-3,
    "head_bits": 8,
    "block_size": 32,
    "symmetric": False,
    "accuracy_level": 4,
    "rounding": "nearest",
    "calibration_rows": 64,
}
#: Row of the table -> the recipe's `quantize`.
WIDTHS: dict[str, dict[str, Any]] = {
    "float32": {"technique": "none", "parity": 1e-3},
    "int8, activations too": {"technique": "dynamic_int8", "parity": 1e-3, "per_channel": True, "embeddings": None},
    "8 bits in blocks": _BLOCKS | {"bits": 8, "embedding_bits": 8},
    "4 bits in blocks, nearest": _BLOCKS | {"bits": 4, "embedding_bits": 8},
    "4 bits in blocks, GPTQ": _BLOCKS | {"bits": 4, "embedding_bits": 8, "rounding": "gptq"},
}


@dataclass(frozen=True)
class Published:
    """What one bundle is worth: its greedy story's tokens, the test stories' perplexity, and what `evaluate` says of it."""

    name: str
    story: Sequence[int]
    text: str
    perplexity: float
    metrics: Mapping[str, Any]


def recipe_of(name: str, source: Path, model: Path) -> dict[str, Any]:
    """One of the two recipes with its teacher's folder filled in."""
    recipe = recipe_for(name, source)
    recipe["teach"]["source"] = str(model.resolve())
    return recipe


def build_all(model: Path, source: Path, work: Path) -> dict[str, Path]:
    """Every bundle of the table by its row's name."""
    shutil.rmtree(work, ignore_errors=True)
    recipe = recipe_of(NAME, source, model)
    run(NAME, recipe, work, FIRST)
    made = {}
    for number, (row, quantize) in enumerate(WIDTHS.items()):
        key = f"{NAME}-{number}"
        shutil.copytree(work / "build" / NAME, work / "build" / key)
        run(key, recipe | {"quantize": quantize}, work, LAST)
        made[row] = work / "build" / key
    shutil.copytree(work / "build" / NAME, work / "build" / SMALL)
    run(SMALL, recipe_of(SMALL, source, model), work, ("distill", "explore", "prune", *LAST))
    return made | {"a layer fewer, FFN 172 to 128, int8": work / "build" / SMALL}


def published(row: str, folder: Path) -> Published:
    """Load a bundle as a user does, let it tell its story, and score the test stories."""
    from slm_registry import TextGenerator

    from pipelines.data.clean import load_clean

    model = TextGenerator.from_folder(folder / "bundle", threads=2)
    story = model.generate([""], max_new_tokens=STORY_TOKENS)[0]
    perplexity = perplexity_of(model, load_clean(folder / "data").test.texts)
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    return Published(row, story.token_ids, story.text, perplexity, metrics)


def perplexity_of(model: Any, texts: Sequence[str]) -> float:
    """exp of the mean nats a token, each text from its beginning."""
    from math import exp

    scores = model.score(texts)
    return exp(-sum(score.log_probability for score in scores) / sum(score.tokens for score in scores))


def teachers_story(model: Path) -> list[int]:
    """What transformers writes from the checkpoint, the likeliest token each time."""
    import torch

    from pipelines.families.loading import load_model

    begin = torch.tensor([[1]])
    with torch.inference_mode():
        written = load_model(model, "AutoModelForCausalLM").generate(
            begin, attention_mask=torch.ones_like(begin), do_sample=False, max_new_tokens=STORY_TOKENS, pad_token_id=2
        )
    tokens: list[int] = written[0, 1:].tolist()
    return tokens


def same_start(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens until two texts differ."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def page(rows: Sequence[Published], teacher: Sequence[int], judged: Mapping[str, float]) -> str:
    """docs/stories.md."""
    lines = [
        "# A real checkpoint: stories260K",
        "",
        "A Llama of 260,032 parameters trained on children's stories (karpathy/tinyllamas), taken as it is (`mode: ready`) through every stage, on text",
        f"that it can model: {TEXTS} stories of its own (`python -m pipelines.data.generations`, seed {SEED}). Written by",
        "",
        "    make bench-stories",
        "",
        "Perplexity a token of the test stories, and the greedy story, come from the published bundle through `slm_registry`. The student of the first five rows is",
        "the whole teacher (distilling moves it hardly); the last row has a layer fewer and a narrower FFN, and recovered on the teacher's stored signals.",
        f"*Same tokens*: how far the greedy story of {STORY_TOKENS} tokens is the checkpoint's own in torch. *Its story*: the perplexity of what the bundle tells, to the float32 one.",
        "",
        "| published | MB | smaller | perplexity | likeliest token as the teacher's, % | same tokens | its story | tokens/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(row, teacher, judged[row.name]) for row in rows]
    lines += ["", "## What they tell", ""]
    for row in rows:
        lines += [f"**{row.name}**", "", *(f"> {line}" for line in row.text.strip().splitlines()), ""]
    return "\n".join(lines)


def _line(row: Published, teacher: Sequence[int], judged: float) -> str:
    model, comparison = row.metrics["model"], row.metrics["comparison"]
    cells = [
        row.name,
        f"{model['bytes'] / 1e6:.2f}",
        f"{comparison['size_ratio']:.1f}x",
        f"{row.perplexity:.3f}",
        f"{100 * model['agreement']:.1f}",
        f"{same_start(row.story, teacher)} of {len(teacher)}",
        f"{judged:.2f}",
        f"{model['tokens_per_s']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main(argv: list[str]) -> int:
    """Write the stories, build every row, measure, write the page."""
    disable_telemetry()
    quiet_libraries()
    from slm_registry import TextGenerator

    from pipelines.data import generations

    parser = argparse.ArgumentParser(prog="python -m benchmarks.stories", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of stories260K")
    parser.add_argument("--work", type=Path, required=True, help="folder to build in; what stands there is replaced")
    parser.add_argument("--page", type=Path, required=True, help="where the Markdown page goes")
    given = parser.parse_args(argv)
    source = given.work / "source"
    texts = list(generations.own_texts(given.model, TEXTS, TOKENS, SEED))
    print(generations.collect(texts, source))
    folders = build_all(given.model, source, given.work / "chain")
    rows = [published(row, folder) for row, folder in folders.items()]
    exact = TextGenerator.from_folder(folders["float32"] / "bundle", threads=2)
    judged = {row.name: perplexity_of(exact, [row.text]) for row in rows}
    given.page.write_text(page(rows, teachers_story(given.model), judged), encoding="utf-8")
    print(given.page.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
