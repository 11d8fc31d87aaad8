"""Commands that read: list, show, pull, predict."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from slm_registry.client import Registry
from slm_registry.commands.tables import rows_text, table
from slm_registry.errors import UsageError
from slm_registry.plumbing.printable import clean, size_text
from slm_registry.runtime.text_classification import TextClassifier
from slm_registry.runtime.token_classification import Span, TokenClassifier


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the commands that look, fetch and predict."""
    listing = commands.add_parser("list", parents=[common], help="versions of a model, or of all models")
    listing.add_argument("name", nargs="?")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", parents=[common], help="files and lineage of a version")
    show.add_argument("ref", help="name, name@alias, name@1.2.0, 'name@>=1.2,<2' or name@sha256:...")
    show.set_defaults(run=_show)

    pull = commands.add_parser("pull", parents=[common], help="fetch a version and print its folder")
    pull.add_argument("ref")
    pull.add_argument("--into", metavar="FOLDER", help="a new or empty folder (default: the cache)")
    pull.set_defaults(run=_pull)

    predict = commands.add_parser(
        "predict", parents=[common], help="label texts, or the words of texts, or of the lines of standard input"
    )
    predict.add_argument("ref")
    predict.add_argument("texts", nargs="*", metavar="text")
    predict.add_argument("--threads", type=int, default=1)
    predict.add_argument("--max-length", type=int, help="cut texts at this many tokens")
    predict.set_defaults(run=_predict)


def _list(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    rows = registry.list(options.name)
    value = [{key: item for key, item in row.as_dict().items() if key != "facts"} for row in rows]
    return value, rows_text(rows)


def _show(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    details = registry.show(options.ref)
    value = asdict(details)
    for file in value["files"]:
        del file["chunks"], file["checksums"]
    head = [(key, str(value[key])) for key in ("model", "version", "digest", "actor", "at", "reason")]
    head += [("aliases", ", ".join(details.aliases)), ("size", size_text(details.size))]
    lines = [f"{key:9}{clean(text)}" for key, text in head]
    files = table(("file", "size", "digest"), [(f.path, size_text(f.size), f.digest[7:19]) for f in details.files])
    lineage = json.dumps(details.lineage, ensure_ascii=False, indent=2, sort_keys=True)
    return value, "\n".join([*lines, "", files, "", "lineage", lineage])


def _pull(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    resolved, path = registry.fetch(options.ref, options.into)
    return {**asdict(resolved), "path": str(path)}, str(path)


def _predict(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    model = registry.load(options.ref, threads=options.threads, max_length=options.max_length)
    if not isinstance(model, TextClassifier | TokenClassifier):
        raise UsageError(f"{options.ref} is for {model.task}; use slm-registry generate")
    texts = options.texts
    if not texts:
        try:
            texts = [line for line in sys.stdin.read().splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not text: {error}; give UTF-8, one text a line") from error
    if isinstance(model, TokenClassifier):
        return _spans(texts, model.predict(texts))
    found = model.predict(texts)
    value = [{"text": text, **prediction._asdict()} for text, prediction in zip(texts, found, strict=True)]
    return value, "\n".join(
        f"{clean(item['label'])}\t{item['probability']:.4f}\t{clean(item['text'])}" for item in value
    )


def _spans(texts: Sequence[str], found: Sequence[Sequence[Span]]) -> tuple[Any, str]:
    """A line a span; where it is from, in characters of its text, stands between."""
    rows = list(zip(texts, found, strict=True))
    value = [{"text": text, "spans": [span._asdict() for span in spans]} for text, spans in rows]
    return value, "\n".join(
        f"{clean(span.label)}\t{span.score:.4f}\t{span.start}-{span.end}\t{clean(span.text)}"
        for _, spans in rows
        for span in spans
    )
