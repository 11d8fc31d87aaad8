"""`python -m pipelines.gguf FOLDER --type q8_0 --out model.gguf`: a text generator of the factory's as one GGUF file.

The folder is a bundle in torch: build/MODEL/student, build/MODEL/pruned. Apart from the stages: a build ships ONNX, and llama.cpp has formats of
its own. What became of the file is printed as JSON. Needs the dependency group `runtimes`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.environment import disable_telemetry, quiet_libraries
from pipelines.errors import FactoryError
from pipelines.gguf.exporting import export_gguf
from pipelines.gguf.writing import FILE_TYPES
from pipelines.sequences.generators import load_generator


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, write, print what is to be known of the file."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.gguf", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="a bundle in torch: build/MODEL/student, build/MODEL/pruned ...")
    parser.add_argument("--type", choices=list(FILE_TYPES), required=True, help="of the matrices; vectors stay f32")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    given = parser.parse_args(argv)
    disable_telemetry()
    quiet_libraries()
    try:
        found = export_gguf(load_generator(given.folder), given.out, given.type)
    except FactoryError as error:
        print(f"gguf: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
