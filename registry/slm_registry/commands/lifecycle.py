"""Commands on versions and aliases that stand already: promote, rollback, yank, unyank, deprecate, undeprecate, log."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slm_registry import names
from slm_registry.changes.aliases import MAX_POLICY, UNSET, Expected, Moved
from slm_registry.client import Registry
from slm_registry.commands.tables import table
from slm_registry.errors import UsageError
from slm_registry.log.entries import Entry
from slm_registry.plumbing.files import open_regular, os_errors

_MARKS = {
    "yank": "take a version out of use: no alias, range or bare name chooses it",
    "unyank": "bring a yanked version back",
    "deprecate": "warn whoever loads a version, with --reason",
    "undeprecate": "take that warning back",
}


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the commands on what is published."""
    promote = commands.add_parser(
        "promote", parents=[common], help="point an alias at a version that passed a gate, with the evidence"
    )
    promote.add_argument("ref", metavar="name@version")
    promote.add_argument("alias")
    promote.add_argument("--gate", required=True, metavar="FILE", help="the policy that was passed; its text is kept")
    promote.add_argument("--gate-digest", metavar="DIGEST", help="the digest of the policy that the gate applied")
    promote.add_argument(
        "--evaluation", default="metrics.json", metavar="FILE", help="a file of the version, or its digest"
    )
    _why(promote, expected=True)
    promote.set_defaults(run=_promote)

    rollback = commands.add_parser(
        "rollback", aliases=["demote"], parents=[common], help="point an alias back to where it was before"
    )
    rollback.add_argument("name")
    rollback.add_argument("alias")
    _why(rollback, expected=True)
    rollback.set_defaults(run=_rollback)

    for name, words in _MARKS.items():
        mark = commands.add_parser(name, parents=[common], help=words)
        mark.add_argument("ref", metavar="name@version")
        _why(mark, required=name == "deprecate")
        mark.set_defaults(run=_mark)

    log = commands.add_parser("log", parents=[common], help="the history of a model: who did what, when and why")
    log.add_argument("name")
    log.add_argument("--last", type=int, metavar="N", help="only the newest N entries")
    log.set_defaults(run=_log)


def _why(parser: argparse.ArgumentParser, *, expected: bool = False, required: bool = False) -> None:
    if expected:
        parser.add_argument(
            "--expected", metavar="VERSION", help="where it must point now; 'none': it must not exist yet"
        )
    parser.add_argument("--reason", default="", required=required, help="why, for the log")


def _expected(options: argparse.Namespace) -> Expected:
    wanted: dict[str | None, Expected] = {None: UNSET, "none": None}
    return wanted.get(options.expected, options.expected)


def _exact(text: str) -> tuple[str, str]:
    """The model and the version of a reference that names both."""
    ref = names.parse_ref(text)
    if ref.version is None:
        raise UsageError(f"{text[:80]!r}: name one exact version, such as {ref.model}@1.2.0")
    return ref.model, ref.version


def _promote(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    model, version = _exact(options.ref)
    path = Path(options.gate)
    if not path.is_file():
        raise UsageError(f"policy {path}: there is no such file; name the one that was passed")
    with os_errors("read", path), open_regular(path) as file:
        policy = file.read(MAX_POLICY + 1)
    return _moved(
        registry.promote(
            model,
            options.alias,
            version,
            policy=policy,
            policy_digest=options.gate_digest,
            evaluation=options.evaluation,
            expected=_expected(options),
            reason=options.reason,
        )
    )


def _rollback(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    return _moved(registry.rollback(options.name, options.alias, expected=_expected(options), reason=options.reason))


def _moved(done: Moved) -> tuple[Any, str]:
    where = f"{done.model}@{done.alias}"
    if not done.moved:
        return asdict(done), f"{where} is at {done.version}"
    return asdict(done), f"{where} {done.previous or '(new)'} -> {done.version}"


def _mark(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    model, version = _exact(options.ref)
    changed = getattr(registry, options.command)(model, version, reason=options.reason)
    value = {"model": model, "version": version, "op": options.command, "changed": changed}
    return value, f"{model}@{version}: {options.command} {'done' if changed else 'was done before'}"


def _log(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    entries = registry.log(options.name, options.last)
    lines = [(str(entry.seq), entry.at, entry.actor, told(entry), entry.reason) for entry in entries]
    return [entry.as_dict() for entry in entries], table(("#", "at", "by", "what", "why"), lines)


def told(entry: Entry) -> str:
    """What an entry did, in a few words."""
    details = entry.details
    if entry.op not in ("alias", "promote"):
        return f"{entry.op} {details['version']}"
    move = f"{entry.op} {details['alias']} {details['expected'] or '(new)'} -> {details['version']}"
    if entry.op == "alias":
        return move
    return f"{move} (evaluation {details['evaluation'][7:19]}, policy {details['policy'][7:19]})"
