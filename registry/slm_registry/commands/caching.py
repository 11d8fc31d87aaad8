"""Commands on the local cache: cache list, size, evict, clear. None of them needs a store."""

from __future__ import annotations

import argparse
import datetime
from typing import Any

from slm_registry.caching.cache import default_cache
from slm_registry.caching.eviction import Evictor, Kept, parse_size, size_limit
from slm_registry.commands.tables import table
from slm_registry.errors import UsageError
from slm_registry.plumbing.printable import size_text


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the group `cache`."""
    group = commands.add_parser("cache", help="look at the local cache and keep it small")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", parents=[common], help="what is there, least recently used first")
    listing.set_defaults(run_alone=_list)
    size = actions.add_parser("size", parents=[common], help="bytes, and the bound")
    size.set_defaults(run_alone=_size)
    evict = actions.add_parser(
        "evict", parents=[common], help="take what was not used for longest; never what is in use"
    )
    evict.add_argument("--to", metavar="SIZE", help="such as 500MB or 2GiB (default: $SLM_REGISTRY_CACHE_SIZE)")
    evict.set_defaults(run_alone=_evict)
    clear = actions.add_parser("clear", parents=[common], help="take all that is not in use")
    clear.set_defaults(run_alone=_clear)


def _list(options: argparse.Namespace) -> tuple[Any, str]:
    rows = [_row(kept) for kept in Evictor(default_cache()).snapshots()]
    cells = [
        (row["model"], row["digest"][7:19], size_text(row["size"]), row["used"], "in use" if row["in_use"] else "")
        for row in rows
    ]
    return rows, table(("model", "digest", "size", "last used", ""), cells)


def _size(options: argparse.Namespace) -> tuple[Any, str]:
    cache = Evictor(default_cache())
    size, limit = cache.size(), size_limit(None)
    bound = f"of {size_text(limit)}" if limit is not None else "no bound; set SLM_REGISTRY_CACHE_SIZE"
    return {"path": str(cache.root), "size": size, "limit": limit}, f"{cache.root}: {size_text(size)}, {bound}"


def _evict(options: argparse.Namespace) -> tuple[Any, str]:
    limit = size_limit(None) if options.to is None else parse_size(options.to)
    if limit is None:
        raise UsageError("no bound is named; give --to SIZE or set SLM_REGISTRY_CACHE_SIZE")
    return _taken(limit)


def _clear(options: argparse.Namespace) -> tuple[Any, str]:
    return _taken(0)


def _taken(limit: int) -> tuple[Any, str]:
    cache = Evictor(default_cache())
    gone = cache.try_evict(limit)
    size = cache.size()
    lines = [f"removed {kept.model} {kept.digest[:12]} {size_text(kept.size)}" for kept in gone or ()]
    if gone is None:
        lines.append("nothing was removed: somebody is fetching into this cache; run it again when that is done")
    value = {"removed": [_row(kept) for kept in gone or ()], "fetching": gone is None, "size": size, "limit": limit}
    return value, "\n".join([*lines, f"{cache.root}: {size_text(size)}"])


def _row(kept: Kept) -> dict[str, Any]:
    used = datetime.datetime.fromtimestamp(kept.used, datetime.UTC).isoformat(timespec="seconds")
    digest = f"sha256:{kept.digest}"
    return {"model": kept.model, "digest": digest, "size": kept.size, "used": used, "in_use": kept.in_use}
