"""Commands that look after a store: gc, fsck; and that carry versions out of it and in: export, import."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slm_registry.client import Registry
from slm_registry.commands.tables import table
from slm_registry.errors import AddressError, CorruptError, UsageError
from slm_registry.plumbing.printable import counted, size_text
from slm_registry.stores.folder import FolderStore
from slm_registry.stores.items import Item
from slm_registry.trust.keys import default_key
from slm_registry.trust.memory import Witness
from slm_registry.upkeep import fsck, gc, oci

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the commands of upkeep."""
    collect = commands.add_parser("gc", parents=[common], help="remove blobs that nothing refers to (a dry run first)")
    collect.add_argument("--delete", action="store_true", help="mark, and remove what an earlier run had marked")
    collect.add_argument("--grace", default="7d", metavar="TIME", help="leave younger blobs alone (90s, 5m, 12h, 7d)")
    collect.set_defaults(run=_gc)

    check = commands.add_parser("fsck", parents=[common], help="hash every blob, follow every reference")
    check.add_argument("--repair", action="store_true", help="put back what the cache holds, rewrite wrong hints")
    check.set_defaults(run=_fsck)

    export = commands.add_parser("export", parents=[common], help="write a version as an OCI image layout")
    export.add_argument("ref")
    export.add_argument("out", metavar="folder", help="a new or an empty one")
    export.set_defaults(run=_export)

    bring = commands.add_parser("import", parents=[common], help="publish a version from an OCI image layout")
    bring.add_argument("layout", metavar="folder")
    bring.add_argument("name")
    bring.add_argument("--tag", help="which of the layout's manifests (default: the only one)")
    bring.add_argument("--version", help="such as 1.2.0 (default: the one that the manifest names)")
    bring.add_argument("--reason", default="", help="why, for the log")
    bring.set_defaults(run=_import)


def _gc(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    grace, witness = _seconds(options.grace), _witness(registry)
    done = gc.collect(registry.store, registry.actor, grace=grace, delete=options.delete, witness=witness)
    lines = [
        f"{'removed' if done.deleted else 'would remove'} {_sum(done.removed)}",
        f"marked, to be removed by a later run: {_sum(done.marked)}",
        f"not marked yet: {_sum(done.unmarked)}",
        f"kept: {counted(done.kept, 'blob')}",
    ]
    for what, found in (
        ("expired leases", done.leases),
        ("sweeps that died", done.sweeps),
        ("writes that never ended", done.unfinished),
    ):
        if found:
            lines.append(f"{what}{' removed' if done.deleted else ''}: {len(found)}")
    if not done.deleted:
        lines.append("a dry run; with --delete it is done")
    return asdict(done), "\n".join(lines)


def _witness(registry: Registry) -> Witness:
    """What this cache saw of the store's logs. Raises AddressError for a folder that does not exist: it is not made."""
    store = registry.store
    if isinstance(store, FolderStore) and not store.root.is_dir():
        raise AddressError(f"{store.url}: there is no such folder; check the address, or that it is mounted")
    return Witness(registry.cache.root, store)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if match is None:
        raise UsageError(f"--grace {text[:40]!r}: write a number and a unit: 90s, 5m, 12h, 7d")
    return int(match[1]) * _UNITS[match[2] or "s"]


def _sum(items: Iterable[Item]) -> str:
    found = list(items)
    return f"{counted(len(found), 'blob')}, {size_text(sum(item.size for item in found))}"


def _fsck(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    witness = _witness(registry)
    report = fsck.check(registry.store, cache=registry.cache.root, repair=options.repair, witness=witness)
    value = {**asdict(report), "left": len(report.left)}
    counts = f"{counted(report.models, 'model')}, {counted(report.entries, 'log entry', 'log entries')}, "
    counts += f"{counted(report.versions, 'version')}, {counted(report.blobs, 'blob')} ({size_text(report.size)}, {report.unreferenced} unreferenced)"
    rows = [_row(damage) for damage in report.damage]
    text = counts
    if rows:
        text += "\n" + table(("damaged", "of", "file", "key", "what", ""), rows)
    if report.left:
        remedy = "publish the same files again, or" if options.repair else "run it with --repair, publish again, or"
        error = CorruptError(
            f"{registry.store.url}: left of {counted(len(report.damage), 'damage')}: {len(report.left)}, the first is "
            f"{report.left[0].key}; {remedy} restore the keys from a copy"
        )
        error.report = (value, text)
        raise error
    return value, text


def _row(damage: fsck.Damage) -> tuple[str, ...]:
    of = "@".join(part for part in (damage.model, damage.version) if part)
    end = "repaired" if damage.repaired else "left"
    return damage.part, of or "-", damage.file or "-", damage.key, damage.problem, end


def _export(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    found = registry.resolve(options.ref)
    out = oci.export_layout(registry.store, registry.cache, found.model, found.version, found.digest, Path(options.out))
    return {**asdict(found), "path": str(out), "tag": found.version}, f"{out}:{found.version}"


def _import(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    done = oci.import_layout(
        registry.publisher(options.name, default_key()),
        Path(options.layout),
        registry.cache,
        tag=options.tag,
        version=options.version,
        reason=options.reason,
    )
    made = done.published
    text = f"{'published' if made.created else 'already there:'} {made.model}@{made.version} {made.digest}"
    text += "\nthe manifest's bytes are those of the layout" if done.same_manifest else f"\na new manifest: {done.why}"
    return asdict(done), text
