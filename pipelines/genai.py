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
from pipelines.families.fresh import POSITIONS
from pipelines.sequences.generators import generation_task

LAYOUT = "genai_config.json"
#: What onnxruntime-genai reads of a bundle, beside the graph and weights that lie outside it.
READ = ("config.json", "tokenizer.json", "tokenizer_config.json")
#: Its name for any decoder whose graph takes keys and values apart; its "gpt2" is a graph of another form.
TYPE = "decoder"
INPUTS = ("input_ids", "attention_mask", "position_ids")
PAST = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
PRESENT = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}


def genai_layout(folder: Path, out: Path) -> None:
    """Write `out`, a folder that `onnxruntime_genai.Model` loads. Raises ModelError."""
    generation_task(folder)
    require_files(folder, MODEL_FILE, *READ)
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
    """genai_config.json of an exported bundle. Greedy, as the factory measures; a caller's own settings go before these.

    Raises ModelError where the graph takes what onnxruntime-genai does not feed.
    """
    config, tokenizer = read_json(folder / "config.json"), read_json(folder / "tokenizer_config.json")
    layers, groups, head_size, vocabulary = graph_sizes(folder / MODEL_FILE)
    limits = [config.get(name) for name in POSITIONS] + [tokenizer.get("model_max_length")]
    length = min((limit for limit in limits if limit), default=None)
    if length is None:
        raise ModelError(f"{folder / 'config.json'}: names none of {', '.join(POSITIONS)}; onnxruntime-genai needs one")
    sizes = {name: size for name in ("hidden_size", "num_attention_heads") if (size := _size(config, name)) is not None}
    decoder = {
        "session_options": {"provider_options": []},
        "filename": MODEL_FILE,
        "head_size": head_size,
        "num_key_value_heads": groups,
        "num_hidden_layers": layers,
        "inputs": {name: name for name in INPUTS} | PAST,
        "outputs": {"logits": "logits"} | PRESENT,
    } | sizes
    model = {"type": TYPE, "vocab_size": vocabulary, "context_length": length, "decoder": decoder}
    search = {"do_sample": False, "max_length": length, "past_present_share_buffer": False}
    return {"model": model | _special(folder, config), "search": search}


def graph_sizes(path: Path) -> tuple[int, int, int, int]:
    """Layers, heads of keys and values, their size, and tokens, as the graph has them.

    Raises ModelError where it has inputs beside ids, mask, positions and a cache that is the same in every layer.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    # What has a value of its own in the graph may be left out.
    own = {tensor.name for tensor in graph.initializer}
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in graph.input}
    cache = {name: tuple(shape[1::2]) for name, shape in shapes.items() if name.startswith("past_key_values.")}
    layers, kinds = len(cache) // 2, set(cache.values())
    wanted = {*INPUTS, *(pattern % layer for pattern in PAST.values() for layer in range(layers))}
    if shapes.keys() - own != wanted or len(kinds) != 1:
        more = ", ".join(sorted(shapes.keys() - own - wanted)) or f"caches of {sorted(kinds)} heads and sizes"
        raise ModelError(f"{path}: takes {more}; onnxruntime-genai feeds ids, mask, positions and one kind of cache")
    groups, head_size = kinds.pop()
    logits = next(value for value in graph.output if value.name == "logits")
    return layers, groups, head_size, logits.type.tensor_type.shape.dim[2].dim_value


def _size(config: dict[str, Any], width: str) -> int | None:
    from pipelines.families.widths import KEYS

    return next((config[key] for key in KEYS[width] if key in config), None)


def _special(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Ids of special tokens: as the exported folder's generation_config.json says, else as its config does."""
    path = folder / "generation_config.json"
    said = read_json(path) if path.is_file() else {}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    found = {name: value for name in names if (value := said.get(name, config.get(name))) is not None}
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
