"""The gate between resolving and loading: what the policy refuses does not pass.

Signatures that held once are kept in the cache, so that a pulled model is verified with the store gone too:

<cache>/signatures/<hex of the manifest's digest>/<key id>.json
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from slm_registry import names
from slm_registry.errors import CorruptError, PolicyError, StoreError
from slm_registry.plumbing.files import open_regular, os_errors, replace_file
from slm_registry.stores.base import Store
from slm_registry.trust.keys import PublicKey
from slm_registry.trust.policy import Policy, Rule, TrustedKey, find_policy
from slm_registry.trust.signatures import MAX_SIGNATURE, Subject, problem_of, signature_folder, signature_key

logger = logging.getLogger("slm_registry")
_SHOWN = 5


class Gate:
    """Lets through what a policy permits; without a policy, everything.

    `policy` is one, or its file; None stands for the one that $SLM_REGISTRY_POLICY names, if it is set.
    """

    def __init__(self, store: Store, cache: Path, policy: Policy | str | os.PathLike[str] | None) -> None:
        self._store = store
        self._cache = cache
        self._given = policy
        self.policy = find_policy(policy)

    def reread(self) -> None:
        """Go by the policy's file as it is now. Raises UsageError where it is none; the policy read before then holds."""
        self.policy = find_policy(self._given)

    def check(self, subject: Subject, alias: str | None) -> tuple[PublicKey, ...]:
        """The keys whose signatures let a version pass, referred to by `alias` (None: by version or digest).

        Raises PolicyError, saying what is missing, and StoreError where signatures must be fetched and cannot be.
        """
        if self.policy is None:
            return ()
        rules = self.policy.rules_for(subject.model, alias)
        if not rules:
            raise PolicyError(
                f"{subject}: no rule of {self.policy.what} speaks of model {subject.model!r}; add one to permit it"
            )
        for rule in rules:
            if rule.oldest is not None and names.version_key(subject.version) < names.version_key(rule.oldest):
                raise PolicyError(f"{subject}: {self.policy.what} refuses versions below {rule.oldest}")
        trusted = {key.public.id: key for rule in rules for key in rule.keys if rule.signatures}
        problems = self._problems(subject, rules, trusted)
        for rule in rules:
            if len(_holding(rule, problems)) < rule.signatures:
                raise PolicyError(self._refusal(subject, alias, rule, problems))
        return tuple(key.public for key_id, key in trusted.items() if problems[key_id] is None)

    def _problems(
        self, subject: Subject, rules: tuple[Rule, ...], trusted: Mapping[str, TrustedKey]
    ) -> dict[str, str | None]:
        """Key id to why it does not count (None: it does). The store is asked only where the cache does not suffice."""
        today = datetime.datetime.now(datetime.UTC).date()
        problems = {key_id: self._cached_problem(subject, key, today) for key_id, key in trusted.items()}
        for rule in rules:
            for key in rule.keys if rule.signatures else ():
                if len(_holding(rule, problems)) >= rule.signatures:
                    break
                if problems[key.public.id] is not None:
                    problems[key.public.id] = self._stored_problem(subject, key, today)
        return problems

    def _cached_problem(self, subject: Subject, key: TrustedKey, today: datetime.date) -> str | None:
        path = self._cache / signature_key(subject.manifest, key.public.id)
        with os_errors("read", path):
            try:
                with open_regular(path) as file:
                    data = file.read(MAX_SIGNATURE + 1)
            except (FileNotFoundError, NotADirectoryError):
                return "there is none"
        return _problem(data, key, subject, today)

    def _stored_problem(self, subject: Subject, key: TrustedKey, today: datetime.date) -> str | None:
        place = signature_key(subject.manifest, key.public.id)
        try:
            data = self._store.get(place, MAX_SIGNATURE)
        except CorruptError as error:
            return str(error)
        if data is None:
            return "there is none"
        problem = _problem(data, key, subject, today)
        if problem is None:
            self._keep(place, data)
        return problem

    def _keep(self, place: str, data: bytes) -> None:
        try:
            replace_file(self._cache / place, data)
        except StoreError as error:
            logger.warning("the signature is not kept for later: %s", error)

    def _refusal(self, subject: Subject, alias: str | None, rule: Rule, problems: Mapping[str, str | None]) -> str:
        what = self.policy.what if self.policy else ""
        wanted = f"{rule.signatures} of " if rule.signatures < len(rule.keys) else ""
        why = "; ".join(f"{key.public.name}: {problems[key.public.id] or 'valid'}" for key in rule.keys[:_SHOWN])
        by = f" (as {alias})" if alias else ""
        keys = ", ".join(key.public.name for key in rule.keys[:_SHOWN])
        return f"{subject}{by}: {what} wants signatures by {wanted}{keys} ({why}){self._others(subject, problems)}"

    def _others(self, subject: Subject, problems: Mapping[str, str | None]) -> str:
        """Who else claims to have signed: it tells a wrong key from none."""
        try:
            found = self._store.children(signature_folder(subject.manifest))
        except StoreError:
            # The refusal stands by itself; this was to explain it.
            return ""
        others = [name.removesuffix(".json")[:12] for name in found if name.removesuffix(".json") not in problems]
        return f"; other keys that claim to have signed: {', '.join(others[:_SHOWN])}" if others else ""


def _problem(data: bytes, key: TrustedKey, subject: Subject, today: datetime.date) -> str | None:
    if key.expires is not None and key.expires < today:
        return f"the key expired on {key.expires}"
    return problem_of(data, key.public, subject, today)


def _holding(rule: Rule, problems: Mapping[str, str | None]) -> set[str]:
    """The keys of a rule whose signatures hold."""
    return {key.public.id for key in rule.keys if problems.get(key.public.id, "") is None}
