"""`python -m pipelines.genai FOLDER --out OTHER`: an exported text generator in the layout that onnxruntime-genai loads.

The folder is an exported bundle: build/MODEL/bundle, or what `slm-registry pull` wrote. The other gets the same graph and tokenizer, and
genai_config.json beside them. Apart from the stages: what a build ships stays one form.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.bundle import read_json, require_files, write_json
from pipelines.environment import disable_telemetry, quiet_libraries
from pipelines.errors import FactoryError, ModelError
from pipelines.families.batching import MODEL_FILE
from pipelines.families.genai import genai_type
from pipelines.sequences.generators import generation_task

LAYOUT = "genai_config.json"
#: What onnxruntime-genai reads of a bundle, beside the graph and weights that lie outside it.
READ = ("config.json", "tokenizer.json", "tokenizer_config.json")
_PAST, _PRESENT = "past_key_values.%d", "present.%d"


def genai_layout(folder: Path, out: Path) -> None:
    """Write `out`, a folder that `onnxruntime_genai.Model` loads. Raises ModelError where it does not run the architecture."""
    require_files(folder, MODEL_FILE, *READ)
    generation_task(folder)
    layout = genai_config(folder)
    if out.exists():
        raise ModelError(f"{out}: exists already; name a folder that does not")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in [*(folder / name for name in READ), *sorted(folder.glob(f"{MODEL_FILE}*"))]:
        shutil.copyfile(path, partial / path.name)
    write_json(partial / LAYOUT, layout)
    partial.rename(out)


def genai_config(folder: Path) -> dict[str, Any]:
    """genai_config.json of an exported bundle. Greedy, as the factory measures; a caller's own settings go before these."""
    from transformers import AutoConfig

    from pipelines.families.widths import depths_of, widths_of

    kind = genai_type(read_json(folder / "config.json"))
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    sizes, heads = widths_of(config), widths_of(config)["num_attention_heads"]
    ends = _special(folder, config)
    length = min(
        config.max_position_embeddings, read_json(folder / "tokenizer_config.json").get("model_max_length", 10**9)
    )
    decoder = {
        "session_options": {"provider_options": []},
        "filename": MODEL_FILE,
        "head_size": sizes["head_dim"],
        "hidden_size": sizes["hidden_size"],
        "num_attention_heads": heads,
        "num_key_value_heads": sizes.get("num_key_value_heads", heads),
        "num_hidden_layers": depths_of(config)["num_hidden_layers"],
        "inputs": {name: name for name in ("input_ids", "attention_mask", "position_ids")}
        | {"past_key_names": f"{_PAST}.key", "past_value_names": f"{_PAST}.value"},
        "outputs": {
            "logits": "logits",
            "present_key_names": f"{_PRESENT}.key",
            "present_value_names": f"{_PRESENT}.value",
        },
    }
    model = {"type": kind, "vocab_size": sizes["vocab_size"], "context_length": length, "decoder": decoder} | ends
    return {"model": model, "search": {"do_sample": False, "max_length": length, "past_present_share_buffer": False}}


def _special(folder: Path, config: Any) -> dict[str, Any]:
    """Ids of special tokens: as the exported folder's generation_config.json says, else as its config does."""
    path = folder / "generation_config.json"
    said = read_json(path) if path.is_file() else {}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    found = {name: value for name in names if (value := said.get(name, getattr(config, name, None))) is not None}
    if "eos_token_id" not in found:
        raise ModelError(f"{folder / 'config.json'}: names no eos_token_id; onnxruntime-genai needs one")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, write."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.genai", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="an exported bundle: build/MODEL/bundle ...")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    given = parser.parse_args(argv)
    disable_telemetry()
    quiet_libraries()
    try:
        genai_layout(given.folder, given.out)
    except FactoryError as error:
        print(f"genai: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
