"""The command line, `slm-registry`."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from slm_registry import __version__
from slm_registry.client import Registry
from slm_registry.commands import (
    caching,
    certifying,
    generating,
    lifecycle,
    measuring,
    publishing,
    reading,
    searching,
    serving,
    site,
    trust,
    upkeep,
)
from slm_registry.errors import RegistryError, UsageError
from slm_registry.plumbing.printable import clean, clean_lines
from slm_registry.plumbing.progress import TextProgress

_EPILOG = """\
exit codes: 0 done, 2 bad name or option, 3 not found, 4 conflict, 5 corrupt, 6 refused content,
8 refused by policy, 7 store unreachable, read-only, full, or without credentials"""


_GROUPS = (
    publishing,
    lifecycle,
    reading,
    generating,
    searching,
    trust,
    caching,
    serving,
    measuring,
    upkeep,
    certifying,
    site,
)


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
        _check_numbers(options)
        value, text = options.run_alone(options) if "run_alone" in options else options.run(_registry(options), options)
        # None: the command printed as it went.
        if text or (as_json and value is not None):
            _print(json.dumps(value, ensure_ascii=False, indent=2) if as_json else clean_lines(text))
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
    elif options.command == "measure" and not flags:
        options.folders += late
    elif options.command in ("list", "search") and options.name is None and len(late) == 1 and not flags:
        options.name = late[0]
    elif late:
        raise UsageError(f"unrecognized arguments: {' '.join(late)}; see slm-registry {options.command} --help")


def _check_numbers(options: argparse.Namespace) -> None:
    """Refuse nan and infinity too: as a bound they bound nothing."""
    for name, value in vars(options).items():
        zero = value == 0 and name in getattr(options, "may_be_zero", ())
        if isinstance(value, float) and not 0 < value < math.inf and not zero:
            raise UsageError(f"--{name.replace('_', '-')} is {value:g}; give a number above 0")


def _fail(error: RegistryError, as_json: bool) -> int:
    message = " ".join(str(error).split())
    found, text = error.report or (None, "")
    if text and not as_json:
        _print(clean_lines(text))
        sys.stdout.flush()
    print(clean(f"slm-registry: {message}"), file=sys.stderr)
    if as_json:
        value = {"type": type(error).__name__, "message": message, "exit_code": error.exit_code}
        _print(json.dumps({"error": value} if found is None else {"error": value, "report": found}, ensure_ascii=False))
    return error.exit_code


def _print(text: str) -> None:
    """Bytes of a path that are no UTF-8 are written as JSON writes them: \\udcff."""
    print(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--store", metavar="URL", help="folder or s3://bucket/prefix (default: $SLM_REGISTRY_URL)")
    common.add_argument("--policy", metavar="FILE", help="who must have signed (default: $SLM_REGISTRY_POLICY)")
    common.add_argument(
        "--offline", action="store_true", help="do not ask the store: what it said last, from the cache"
    )
    common.add_argument("--max-age", type=float, metavar="SECONDS", help="refuse an older answer than this")
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = _Parser(
        prog="slm-registry",
        description="A model registry in a folder or an S3 bucket.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"slm-registry {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in _GROUPS:
        group.add(commands, common)
    return parser


def _registry(options: argparse.Namespace) -> Registry:
    url = options.store or os.environ.get("SLM_REGISTRY_URL")
    if not url:
        raise UsageError("no store is named; give --store URL or set SLM_REGISTRY_URL")
    return Registry(
        url,
        policy=options.policy,
        offline=options.offline,
        max_age=options.max_age,
        progress=TextProgress(sys.stderr),
    )
