"""Commands that write: publish, alias."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slm_registry.bundles.manifest import MAX_CONFIG
from slm_registry.changes.aliases import UNSET
from slm_registry.client import Registry
from slm_registry.errors import CorruptError, UsageError
from slm_registry.plumbing.jsonio import parse_object


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the commands that publish and move."""
    publish = commands.add_parser("publish", parents=[common], help="publish a bundle's folder as a version")
    publish.add_argument("folder")
    publish.add_argument("name")
    publish.add_argument("--version", help="such as 1.2.0 (default: the next patch version, if the files are new)")
    publish.add_argument("--lineage", metavar="FILE", help="JSON to record (default: lineage.json in the folder)")
    publish.add_argument("--alias", help="point this alias at the version")
    publish.add_argument("--reason", default="", help="why, for the log")
    publish.add_argument("--key", metavar="FILE", help="sign with this private key (default: $SLM_REGISTRY_KEY)")
    publish.add_argument("--repair", action="store_true", help="read every file back, and write what is damaged again")
    publish.set_defaults(run=_publish)

    alias = commands.add_parser("alias", parents=[common], help="point an alias at a version")
    alias.add_argument("name")
    alias.add_argument("alias")
    alias.add_argument("to", metavar="version")
    alias.add_argument("--expected", metavar="VERSION", help="where it must point now; 'none': it must not exist yet")
    alias.add_argument("--reason", default="", help="why, for the log")
    alias.set_defaults(run=_alias)


def _publish(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    done = registry.publish(
        options.folder,
        options.name,
        version=options.version,
        lineage=_lineage(options),
        alias=options.alias,
        reason=options.reason,
        key=options.key,
        repair=options.repair,
    )
    text = f"{'published' if done.created else 'already there:'} {done.model}@{done.version} {done.digest}"
    return asdict(done), text + (f"\n{done.model}@{done.alias} -> {done.version}" if done.alias else "")


def _lineage(options: argparse.Namespace) -> Mapping[str, Any]:
    path = Path(options.lineage) if options.lineage else Path(options.folder) / "lineage.json"
    if not options.lineage and not path.exists():
        return {}
    try:
        return parse_object(path.read_bytes(), str(path), limit=MAX_CONFIG)
    except OSError as error:
        raise UsageError(f"lineage {path}: {error.strerror}; name a readable JSON file") from error
    except CorruptError as error:
        raise UsageError(f"lineage {error}") from error


def _alias(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    expected = {None: UNSET, "none": None}.get(options.expected, options.expected)
    moved = registry.alias(options.name, options.alias, options.to, expected=expected, reason=options.reason)
    value = {"model": options.name, "alias": options.alias, "version": options.to, "moved": moved}
    return value, f"{options.name}@{options.alias} {'->' if moved else 'is at'} {options.to}"
