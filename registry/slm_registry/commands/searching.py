"""Commands that find and weigh versions: search, compare."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from slm_registry.client import Registry
from slm_registry.commands.tables import rows_text, table
from slm_registry.finding.compare import Comparison, Difference
from slm_registry.finding.search import make_query
from slm_registry.plumbing.printable import size_text


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the commands that search and compare."""
    search = commands.add_parser("search", parents=[common], help="versions by task, metric, size, label or lineage")
    search.add_argument("name", nargs="?")
    search.add_argument("--task", help="such as text-classification, or a recipe's word: text-to-text")
    search.add_argument(
        "--metric", action="append", default=[], metavar="CONDITION", help="such as 'accuracy>=0.8'; may be repeated"
    )
    search.add_argument("--size", metavar="CONDITION", help="such as '<=20MB'")
    search.add_argument("--label", help="a class that the model knows")
    search.add_argument(
        "--data", metavar="DIGEST", help="digest of the training data, or its first 7 characters or more"
    )
    search.add_argument("--teacher", metavar="DIGEST", help="digest or source of the teacher")
    search.add_argument("--git", metavar="COMMIT", help="commit that built it, or its first 7 characters or more")
    search.add_argument("--yanked", action="store_true", help="yanked versions too")
    search.set_defaults(run=_search)

    compare = commands.add_parser("compare", parents=[common], help="two versions side by side")
    compare.add_argument("left", metavar="name@version")
    compare.add_argument("right", metavar="name@version")
    compare.set_defaults(run=_compare)


def _search(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    asked = {key: getattr(options, key) for key in ("task", "size", "label", "data", "teacher", "git", "yanked")}
    rows = registry.search(options.name, metrics=options.metric, **asked)
    return [row.as_dict() for row in rows], rows_text(rows, _metric_names(options.metric))


def _metric_names(conditions: Sequence[str]) -> list[str]:
    query = make_query(task=None, metrics=conditions, size=None, label=None, lineage={}, yanked=False)
    return sorted({condition.name for condition in query.metrics})


def _compare(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    found = registry.compare(options.left, options.right)
    return asdict(found), _text(found)


def _text(found: Comparison) -> str:
    head = ("", found.left, found.right, "change")
    ratio = f"x {found.size.right / found.size.left:.3g}" if found.size.left else ""
    numbers = [("size", size_text(found.size.left), size_text(found.size.right), ratio)]
    numbers += [(pair.name, _shown(pair.left), _shown(pair.right), _change(pair)) for pair in found.metrics]
    parts = [table(head, numbers)]
    for title, pairs in (("files", found.files), ("recipe", found.recipe), ("origin", found.origin)):
        rows = [(pair.name, _shown(pair.left), _shown(pair.right)) for pair in pairs]
        parts.append(table((title, found.left, found.right), rows) if rows else f"{title}: no difference")
    return "\n\n".join(parts)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text[7:19] if text.startswith("sha256:") else text if len(text) <= 40 else text[:37] + "..."


def _change(pair: Difference) -> str:
    if pair.left is None or pair.right is None:
        return ""
    return f"{pair.right - pair.left:+.6g}"
