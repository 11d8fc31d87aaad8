"""The command line, `slm-registry`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from slm_registry import __version__
from slm_registry.client import Registry
from slm_registry.errors import CorruptError, RegistryError, UsageError
from slm_registry.jsonio import parse_object
from slm_registry.manifest import MAX_CONFIG
from slm_registry.publish import UNSET

_EPILOG = """\
exit codes: 0 done, 2 bad name or option, 3 not found, 4 conflict, 5 corrupt, 6 refused content,
7 store unreachable, read-only, full, or without credentials"""


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as the registry's own, so that --json holds for them too."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        options, late = _parser().parse_known_args(arguments)
        _take_late(options, late)
        value, text = _COMMANDS[options.command](_registry(options), options)
        print(json.dumps(value, ensure_ascii=False, indent=2) if as_json else text)
        sys.stdout.flush()
    except RegistryError as error:
        return _fail(error, as_json)
    except BrokenPipeError:
        # The reader has seen enough (| head). What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("slm-registry: interrupted; run it again, nothing is half-done", file=sys.stderr)
        return 130
    return 0


def _take_late(options: argparse.Namespace, late: Sequence[str]) -> None:
    """Give words that follow an option to the positional that may stay empty: argparse closes it at the option."""
    flags = [word for word in late if word.startswith("-")]
    if options.command == "predict" and not flags:
        options.texts += late
    elif options.command == "list" and options.name is None and len(late) == 1 and not flags:
        options.name = late[0]
    elif late:
        raise UsageError(f"unrecognized arguments: {' '.join(late)}; see slm-registry {options.command} --help")


def _fail(error: RegistryError, as_json: bool) -> int:
    message = " ".join(str(error).split())
    print(f"slm-registry: {message}", file=sys.stderr)
    if as_json:
        value = {"type": type(error).__name__, "message": message, "exit_code": error.exit_code}
        print(json.dumps({"error": value}, ensure_ascii=False))
    return error.exit_code


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--store", metavar="URL", help="folder or s3://bucket/prefix (default: $SLM_REGISTRY_URL)")
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = _Parser(
        prog="slm-registry",
        description="A model registry in a folder or an S3 bucket.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"slm-registry {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_writers(commands, common)
    _add_readers(commands, common)
    return parser


def _add_writers(commands: Any, common: argparse.ArgumentParser) -> None:
    publish = commands.add_parser("publish", parents=[common], help="publish a bundle's folder as a version")
    publish.add_argument("folder")
    publish.add_argument("name")
    publish.add_argument("--version", help="such as 1.2.0 (default: the next patch version, if the files are new)")
    publish.add_argument("--lineage", metavar="FILE", help="JSON to record (default: lineage.json in the folder)")
    publish.add_argument("--alias", help="point this alias at the version")
    publish.add_argument("--reason", default="", help="why, for the log")

    alias = commands.add_parser("alias", parents=[common], help="point an alias at a version")
    alias.add_argument("name")
    alias.add_argument("alias")
    alias.add_argument("to", metavar="version")
    alias.add_argument("--expected", metavar="VERSION", help="where it must point now; 'none': it must not exist yet")
    alias.add_argument("--reason", default="", help="why, for the log")


def _add_readers(commands: Any, common: argparse.ArgumentParser) -> None:
    listing = commands.add_parser("list", parents=[common], help="versions of a model, or of all models")
    listing.add_argument("name", nargs="?")

    show = commands.add_parser("show", parents=[common], help="files and lineage of a version")
    show.add_argument("ref", help="name, name@alias, name@1.2.0 or name@sha256:...")

    pull = commands.add_parser("pull", parents=[common], help="fetch a version and print its folder")
    pull.add_argument("ref")
    pull.add_argument("--into", metavar="FOLDER", help="a new or empty folder (default: the cache)")

    predict = commands.add_parser("predict", parents=[common], help="label texts, or the lines of standard input")
    predict.add_argument("ref")
    predict.add_argument("texts", nargs="*", metavar="text")
    predict.add_argument("--threads", type=int, default=1)
    predict.add_argument("--max-length", type=int, help="cut texts at this many tokens")

    log = commands.add_parser("log", parents=[common], help="who published and moved what, when and why")
    log.add_argument("name")


def _registry(options: argparse.Namespace) -> Registry:
    url = options.store or os.environ.get("SLM_REGISTRY_URL")
    if not url:
        raise UsageError("no store is named; give --store URL or set SLM_REGISTRY_URL")
    return Registry(url)


def _publish(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    done = registry.publish(
        options.folder,
        options.name,
        version=options.version,
        lineage=_lineage(options),
        alias=options.alias,
        reason=options.reason,
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


def _list(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    rows = registry.list(options.name)
    cells = [
        (row.model, row.version, ", ".join(row.aliases), _size(row.size), row.at, row.actor, row.digest[7:19])
        for row in rows
    ]
    return [asdict(row) for row in rows], _table(("model", "version", "aliases", "size", "at", "by", "digest"), cells)


def _show(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    details = registry.show(options.ref)
    value = asdict(details)
    for file in value["files"]:
        del file["chunks"]
    head = [(key, str(value[key])) for key in ("model", "version", "digest", "actor", "at", "reason")]
    head += [("aliases", ", ".join(details.aliases)), ("size", _size(details.size))]
    lines = [f"{key:9}{text}" for key, text in head]
    files = _table(("file", "size", "digest"), [(f.path, _size(f.size), f.digest[7:19]) for f in details.files])
    lineage = json.dumps(details.lineage, ensure_ascii=False, indent=2, sort_keys=True)
    return value, "\n".join([*lines, "", files, "", "lineage", lineage])


def _pull(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    resolved = registry.resolve(options.ref)
    path = registry.pull(f"{resolved.model}@{resolved.version}", options.into)
    return {**asdict(resolved), "path": str(path)}, str(path)


def _alias(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    expected = {None: UNSET, "none": None}.get(options.expected, options.expected)
    moved = registry.alias(options.name, options.alias, options.to, expected=expected, reason=options.reason)
    value = {"model": options.name, "alias": options.alias, "version": options.to, "moved": moved}
    return value, f"{options.name}@{options.alias} {'->' if moved else 'is at'} {options.to}"


def _predict(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    model = registry.load(options.ref, threads=options.threads, max_length=options.max_length)
    texts = options.texts
    if not texts:
        try:
            texts = [line for line in sys.stdin.read().splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not text: {error}; give UTF-8, one text a line") from error
    found = model.predict(texts)
    value = [{"text": text, **prediction._asdict()} for text, prediction in zip(texts, found, strict=True)]
    return value, "\n".join(f"{item['label']}\t{item['probability']:.4f}\t{item['text']}" for item in value)


def _log(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    entries = registry.log(options.name)
    lines = []
    for entry in entries:
        details = entry.details
        what = f"publish {details['version']}"
        if entry.op == "alias":
            what = f"alias {details['alias']} {details['expected'] or '(new)'} -> {details['version']}"
        lines.append((str(entry.seq), entry.at, entry.actor, what, entry.reason))
    return [entry.as_dict() for entry in entries], _table(("#", "at", "by", "what", "why"), lines)


_COMMANDS: Mapping[str, Callable[[Registry, argparse.Namespace], tuple[Any, str]]] = {
    "publish": _publish,
    "list": _list,
    "show": _show,
    "pull": _pull,
    "alias": _alias,
    "predict": _predict,
    "log": _log,
}


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    number, units = float(size), iter(("kB", "MB", "GB", "TB"))
    unit = "B"
    while number >= 1000 and (unit := next(units, "")):
        number /= 1000
    return f"{number:.1f} {unit}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; control characters in a cell do not reach the terminal."""
    clean = [[("".join(c if c.isprintable() else "?" for c in cell)) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in clean) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in clean]
    return "\n".join(lines)
