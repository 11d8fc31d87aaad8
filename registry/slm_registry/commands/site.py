"""The command that writes the catalogue: site."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slm_registry.client import Registry
from slm_registry.errors import UsageError
from slm_registry.plumbing.printable import counted


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the command that writes the catalogue."""
    site = commands.add_parser("site", parents=[common], help="write the catalogue, a static site")
    site.add_argument("out", help="a folder: new, empty, or a catalogue written before")
    site.add_argument("--title", default="Model catalogue", help="what the catalogue is called")
    site.add_argument("--address", metavar="URL", help="the store as readers reach it, for the snippets")
    site.set_defaults(run=_site)


def _site(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    try:
        import jinja2  # noqa: F401
        import markdown_it  # noqa: F401
    except ImportError as error:
        raise UsageError(f"site: {error.name} is not installed; pip install 'slm-registry[site]'") from error
    from slm_registry.site.writing import write_site

    done = write_site(registry, Path(options.out), title=options.title, address=options.address)
    made = f"{counted(done.written, 'page')} written, {done.unchanged} unchanged, {done.removed} removed"
    text = f"{counted(done.models, 'model')}: {made}"
    return asdict(done), f"{text}\n{done.index}"
