"""The policy: which keys must have signed which models before they are loaded.

A TOML file (or the same as .json):

    format = 1

    [keys]
    ci = "slm-ed25519 <base64> ci"
    release = { public = "slm-ed25519 <base64> release", expires = 2030-01-31 }

    [[rules]]
    models = ["*"]                # patterns with * and ?
    keys = ["ci", "release"]
    signatures = 1                # how many different keys of these; 0: none is needed; default 1

    [[rules]]
    models = ["support-*"]
    aliases = ["production"]      # only for references by these aliases; default: for every reference
    keys = ["release"]
    oldest = "1.2.0"              # refuse versions below

Every rule that matches must be met, so that adding one never permits more. A model that no rule matches is refused.
"""

from __future__ import annotations

import datetime
import fnmatch
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_registry import names
from slm_registry.errors import CorruptError, UsageError, near
from slm_registry.plumbing.files import expanded
from slm_registry.plumbing.jsonio import parse_object
from slm_registry.trust.keys import PublicKey, parse_public
from slm_registry.trust.signatures import parse_day

FORMAT = 1
POLICY_VARIABLE = "SLM_REGISTRY_POLICY"
MAX_POLICY = 1 << 20
MAX_ITEMS = 1000

_PATTERN = re.compile(r"[a-z0-9*?._-]{1,128}")
_RULE_FIELDS = {"models", "aliases", "keys", "signatures", "oldest"}


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key that the policy names, and the last day on which it is trusted."""

    public: PublicKey
    expires: datetime.date | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Whose signatures versions of some models need. No `aliases` means every reference."""

    models: tuple[str, ...]
    keys: tuple[TrustedKey, ...]
    signatures: int = 1
    aliases: tuple[str, ...] | None = None
    oldest: str | None = None

    def covers(self, model: str, alias: str | None) -> bool:
        """Whether the rule speaks of a reference to this model by this alias (None: by version or digest)."""
        if not _matches(model, self.models):
            return False
        return self.aliases is None or (alias is not None and _matches(alias, self.aliases))


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules, and where they come from."""

    what: str
    rules: tuple[Rule, ...]

    def rules_for(self, model: str, alias: str | None) -> tuple[Rule, ...]:
        """The rules that a reference must meet, all of them."""
        return tuple(rule for rule in self.rules if rule.covers(model, alias))


def demanding(keys: tuple[PublicKey, ...]) -> Policy:
    """The policy that wants a signature of each of these keys on everything."""
    trusted = tuple(TrustedKey(key) for key in dict.fromkeys(keys))
    return Policy("the keys asked for", (Rule(("*",), trusted, len({key.public.raw for key in trusted})),))


def default_policy() -> Policy | None:
    """The policy that $SLM_REGISTRY_POLICY names, None where it is not set."""
    named = os.environ.get(POLICY_VARIABLE)
    return read_policy(expanded(named, f"name the whole path in {POLICY_VARIABLE}")) if named else None


def find_policy(given: Policy | str | os.PathLike[str] | None) -> Policy | None:
    """The policy itself, the one in the file that is named, or the default one. Raises UsageError as `read_policy`."""
    if given is None:
        return default_policy()
    return given if isinstance(given, Policy) else read_policy(Path(given))


def read_policy(path: Path) -> Policy:
    """Read a policy's file. Raises UsageError where it is not there or not a policy: a doubtful one permits nothing."""
    what = f"policy {path}"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY + 1)
    except OSError as error:
        raise UsageError(f"{what}: {error.strerror}; name a readable file") from error
    if len(data) > MAX_POLICY:
        raise UsageError(f"{what}: more than {MAX_POLICY} bytes; it is no policy")
    return parse_policy(_values(data, what, as_json=path.suffix == ".json"), what)


def parse_policy(value: Mapping[str, Any], what: str) -> Policy:
    """The policy in a parsed file. Raises UsageError, naming the rule or key and what is wrong with it."""
    _only(value, {"format", "keys", "rules"}, what)
    if type(value.get("format")) is not int or value["format"] != FORMAT:
        raise UsageError(f"{what}: format {str(value.get('format'))[:20]!r}; this release reads format = {FORMAT}")
    keys, rules = value.get("keys", {}), value.get("rules", [])
    if not isinstance(keys, dict) or not isinstance(rules, list) or max(len(keys), len(rules)) > MAX_ITEMS:
        raise UsageError(f"{what}: a table [keys] and [[rules]] were expected, at most {MAX_ITEMS} of each")
    trusted = {name: _key(name, item, f"{what}: key {name[:80]!r}") for name, item in keys.items()}
    if len({key.public.raw for key in trusted.values()}) != len(trusted):
        raise UsageError(f"{what}: the same key stands under two names; it would count as two signers")
    return Policy(what, tuple(_rule(item, trusted, f"{what}: rule {n}") for n, item in enumerate(rules, 1)))


def _values(data: bytes, what: str, *, as_json: bool) -> Mapping[str, Any]:
    try:
        return parse_object(data, what) if as_json else tomllib.loads(data.decode("utf-8"))
    except CorruptError as error:
        raise UsageError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what}: not TOML: {error}") from error


def _key(name: str, item: Any, what: str) -> TrustedKey:
    if not names.is_model_name(name):
        raise UsageError(f"{what}: not a name; use a-z, 0-9, dot, underscore and dash")
    table = {"public": item} if isinstance(item, str) else item
    if not isinstance(table, dict) or not isinstance(table.get("public"), str):
        raise UsageError(f'{what}: write it as "slm-ed25519 ...", or as {{ public = "...", expires = 2030-01-31 }}')
    _only(table, {"public", "expires"}, what)
    expires = table.get("expires")
    if isinstance(expires, str):
        expires = parse_day(expires, f"{what}: expires")
    # A TOML date-time is a date to isinstance.
    if expires is not None and type(expires) is not datetime.date:
        raise UsageError(f"{what}: expires is {str(expires)[:40]!r}; give a day such as 2030-01-31")
    return TrustedKey(PublicKey(name, parse_public(table["public"], what).raw), expires)


def _rule(item: Any, trusted: Mapping[str, TrustedKey], what: str) -> Rule:
    if not isinstance(item, dict):
        raise UsageError(f"{what}: a table was expected")
    _only(item, _RULE_FIELDS, what)
    named = _words(item.get("keys", []), f"{what}: keys")
    unknown = [name for name in named if name not in trusted]
    if unknown:
        raise UsageError(f"{what}: key {unknown[0][:80]!r} is not in [keys]; {near(unknown[0], trusted)}")
    count = item.get("signatures", 1)
    if type(count) is not int or not 0 <= count <= len(set(named)):
        raise UsageError(
            f"{what}: signatures is {str(count)[:20]}; give 0 to {len(set(named))}, the number of its keys"
        )
    oldest = item.get("oldest")
    if oldest is not None:
        names.version_key(oldest)
    aliases = _patterns(item["aliases"], f"{what}: aliases") if "aliases" in item else None
    keys = tuple(trusted[name] for name in dict.fromkeys(named))
    return Rule(_patterns(item.get("models"), f"{what}: models"), keys, count, aliases, oldest)


def _patterns(value: Any, what: str) -> tuple[str, ...]:
    found = _words(value, what)
    for pattern in found:
        if not _PATTERN.fullmatch(pattern):
            raise UsageError(f"{what}: pattern {pattern[:80]!r}; use the letters of names, * and ?")
    if not found:
        raise UsageError(f'{what}: at least one pattern is needed; ["*"] stands for all')
    return found


def _words(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS or not all(isinstance(item, str) for item in value):
        raise UsageError(f"{what}: a list of texts was expected")
    return tuple(value)


def _only(value: Mapping[str, Any], allowed: set[str], what: str) -> None:
    """A misspelt field must not silently leave out a demand."""
    unknown = sorted(set(value) - allowed)
    if unknown:
        raise UsageError(f"{what}: field {unknown[0][:80]!r} is unknown; {near(unknown[0], allowed)}")


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
