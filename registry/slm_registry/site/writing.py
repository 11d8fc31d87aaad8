"""The folder of a catalogue, brought up to date so that a reader never meets half a page or a link to a page not there.

OUT/index.html            all models
OUT/models/<name>.html    a model
OUT/catalogue.json        what was written from which log entry: an unchanged model is not read and rendered again

A new page is complete in a staging folder before it takes the place of the old one; models go first, then the index,
then the record; pages of models that are gone are removed last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from slm_registry.client import Registry
from slm_registry.errors import UsageError
from slm_registry.plumbing.files import make_folders, os_errors
from slm_registry.site.collect import read_log, read_model
from slm_registry.site.pages import Pages, summary

RECORD = "catalogue.json"
_READERS = 8
_MODES = 0o644


@dataclass(frozen=True, slots=True)
class Written:
    """How many models the catalogue has, and what was done to their pages."""

    index: str
    models: int
    written: int
    unchanged: int
    removed: int


def write_site(registry: Registry, out: Path, *, title: str, address: str | None) -> Written:
    """Write the catalogue of a registry into `out`: a folder that is new, empty, or holds a catalogue.

    Raises UsageError for any other folder. Where reading fails, what stands in `out` stays as it is.
    """
    out = out.absolute()
    with os_errors("write", out):
        before = _record(out)
        make_folders(out.parent)
        with _staging(out) as staging:
            return _write(registry, out, staging, before, Pages(title, address), _maker(title, address))


def _write(
    registry: Registry, out: Path, staging: Path, before: Mapping[str, Any], pages: Pages, maker: str
) -> Written:
    (staging / "models").mkdir()
    known = before.get("models", {})
    if before.get("maker") != maker or before.get("digest") != _digest_of(known):
        known = {}
    render = partial(_model, registry, out, staging, known, pages)
    with ThreadPoolExecutor(_READERS) as readers:
        found = dict(readers.map(render, registry.models()))
    rows = [made["summary"] for made in found.values()]
    _put(staging / "index.html", pages.index(rows))
    record = {"maker": maker, "digest": _digest_of(found), "models": found}
    _put(staging / RECORD, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    written = sum(1 for _ in (staging / "models").iterdir())
    removed = _install(staging, out, set(found))
    return Written(str(out / "index.html"), len(found), written, len(found) - written, removed)


def _model(
    registry: Registry, out: Path, staging: Path, known: Mapping[str, Any], pages: Pages, name: str
) -> tuple[str, dict[str, Any]]:
    """Render a model's page unless the one that stands there is of the same log, and return its record."""
    log = read_log(registry, name)
    held = known.get(name)
    if held and held["entry"] == log[-1]["digest"] and held["page"] == _digest(out / "models" / f"{name}.html"):
        return name, held
    model = read_model(registry, name, log)
    path = staging / "models" / f"{name}.html"
    _put(path, pages.model(model))
    return name, {"entry": model.entry, "page": _digest(path), "summary": summary(model)}


def _install(staging: Path, out: Path, models: set[str]) -> int:
    """Put the staged files in their places, the index after the pages it links to. Returns how many pages went."""
    if not out.exists():
        staging.rename(out)
        return 0
    (out / "models").mkdir(exist_ok=True)
    for path in sorted((staging / "models").iterdir()):
        path.replace(out / "models" / path.name)
    for name in ("index.html", RECORD):
        if _digest(staging / name) != _digest(out / name):
            (staging / name).replace(out / name)
    gone = [path for path in (out / "models").glob("*.html") if path.stem not in models]
    for path in gone:
        path.unlink()
    return len(gone)


def _record(out: Path) -> dict[str, Any]:
    """The record of the catalogue that stands in `out`, empty where there is none."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"site: {out} is not a folder; name a new or an empty one")
    path = out / RECORD
    if path.is_file():
        # A broken record costs a full rewrite and nothing else.
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"site: {out} holds other files; name a new or an empty folder, or a catalogue")
    return {}


def _maker(title: str, address: str | None) -> str:
    """What pages depend on beside the log: this code, its templates and the options."""
    hasher = hashlib.sha256(json.dumps([title, address]).encode())
    package = resources.files("slm_registry.site")
    for folder in (package, package.joinpath("templates")):
        for item in sorted(folder.iterdir(), key=lambda item: item.name):
            if item.is_file():
                hasher.update(item.read_bytes())
    return hasher.hexdigest()


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    folder = out.parent / f".{out.name}.{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", errors="replace"))
    path.chmod(_MODES)


def _digest_of(models: object) -> str:
    """The SHA-256 of what a record says of its models: only what was written here is believed."""
    return hashlib.sha256(json.dumps(models, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    """The SHA-256 of a file, "" where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
