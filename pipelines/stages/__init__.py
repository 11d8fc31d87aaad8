"""The stages, one module each: load -> pure call -> save. dvc.yaml alone knows their paths and edges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

#: Stage names in the order of the chain.
STAGES = ("validate", "teach", "label", "distill", "explore", "prune", "quantize", "evaluate", "gate")

#: A file or folder that the stage writes.
Output = Annotated[Path, "output"]

#: As Output, but what a killed run left is there for the next one, which must tell what it can use of it.
Resumable = Annotated[Path, "resumable output"]
