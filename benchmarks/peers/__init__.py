"""Tools that a user would pick instead, each in an environment of its own: one folder a tool, with its pins and its script."""

from pathlib import Path

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.parent.name for path in HERE.glob("*/peer.py")))
