"""Data that a language model wrote itself: text that it can model, for a checkpoint whose own training text is not at hand.

    python -m pipelines.data.generations MODEL OUT --texts 512 --tokens 480 --seed 17

writes OUT/{train,validation,test}.jsonl (column text): draws from the model's whole distribution, from its first token to its own
end. Texts that do not end within so many tokens are left out. The same checkpoint and seed give the same files on the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.environment import disable_telemetry, quiet_libraries
from pipelines.errors import DataError, FactoryError

#: Texts written side by side.
BATCH = 128
#: Shares of what was written; the rest is test.
TRAIN, VALIDATION = 0.75, 0.1


def own_texts(model: Path, count: int, tokens: int, seed: int) -> Iterator[str]:
    """What a causal model of `model` writes from its first token to its end; of `count` texts those that end within `tokens`.

    Raises ModelError where the folder does not load, DataError where its tokenizer names no token that begins a text.
    """
    import torch

    from pipelines.bundle import Bundle
    from pipelines.config import OnPolicy
    from pipelines.families.batching import ends_of, written
    from pipelines.families.loading import load_model, load_tokenizer, require_model

    require_model(model)
    bundle = Bundle(load_model(model, "AutoModelForCausalLM"), load_tokenizer(model), {})
    begin, ends = bundle.tokenizer.bos_token_id, ends_of(bundle)
    if begin is None:
        raise DataError(f"{model}: the tokenizer names no token that texts begin with; set bos_token")
    torch.manual_seed(seed)
    how = OnPolicy(share=1, prompt_tokens=1, max_new_tokens=tokens, temperature=1)
    for start in range(0, count, BATCH):
        ids = torch.full((min(BATCH, count - start), 1), begin)
        for row in written(bundle, (ids, torch.ones_like(ids)), how, skip=1):
            text = bundle.tokenizer.decode(row, skip_special_tokens=True)
            if row[-1] in ends and text.strip():
                yield text


def collect(texts: Sequence[str], out: Path) -> dict[str, int]:
    """Write the splits; rows by split. Raises DataError where one would be empty."""
    first, second = int(len(texts) * TRAIN), int(len(texts) * (TRAIN + VALIDATION))
    splits = {"train": texts[:first], "validation": texts[first:second], "test": texts[second:]}
    empty = [name for name, rows in splits.items() if not rows]
    if empty:
        raise DataError(f"{len(texts)} texts came to an end, too few for {', '.join(empty)}; write more or longer ones")
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in rows]
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {name: len(rows) for name, rows in splits.items()}


def main(argv: Sequence[str]) -> int:
    """Let a model write its own data set."""
    disable_telemetry()
    quiet_libraries()
    parser = argparse.ArgumentParser(prog="python -m pipelines.data.generations", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a causal language model")
    parser.add_argument("out", type=Path, help="folder that the splits go to")
    parser.add_argument("--texts", type=int, required=True, help="texts to begin")
    parser.add_argument("--tokens", type=int, required=True, help="tokens of the longest")
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args(argv)
    try:
        found = collect(list(own_texts(given.model, given.texts, given.tokens, given.seed)), given.out)
    except FactoryError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    print(", ".join(f"{name} {rows} rows" for name, rows in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
