"""Signatures over manifests: what is signed, how it is written, and where it lies.

signatures/<hex of the manifest's digest>/<key id>.json

The file is canonical JSON: a statement, and the Ed25519 signature of the statement's canonical bytes. The statement
names model, version and manifest, so a signature is worth nothing anywhere else. It names no time of signing: whoever
holds the key could claim any, and without one the same key signs the same version with the same bytes always.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import asdict, dataclass
from typing import Any

from slm_registry.errors import ConflictError, CorruptError, UsageError
from slm_registry.plumbing.jsonio import canonical, parse_object
from slm_registry.stores.base import Store
from slm_registry.trust.keys import PrivateKey, PublicKey

FORMAT = 1
ALGORITHM = "ed25519"
MAX_SIGNATURE = 4096
SIGNATURES = "signatures"

# Signed before the statement, so that nobody can pass off another text signed with the same key as one.
_DOMAIN = b"slm-registry signature 1\n"
_FIELDS = {"format": int, "algorithm": str, "key": str, "model": str, "version": str, "manifest": str}
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is signed: one version of one model, and the digest of its manifest."""

    model: str
    version: str
    manifest: str

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


def signature_folder(manifest: str) -> str:
    """Where the signatures over a manifest lie."""
    return f"{SIGNATURES}/{manifest.removeprefix('sha256:')}"


def signature_key(manifest: str, key_id: str) -> str:
    """Where a key's signature over a manifest lies."""
    return f"{signature_folder(manifest)}/{key_id}.json"


def encode_signature(key: PrivateKey, subject: Subject, expires: str | None = None) -> bytes:
    """The bytes of a signature's file. `expires` is the last day (UTC) on which it holds, such as 2030-01-31."""
    if expires is not None:
        parse_day(expires, "expires")
    statement = _statement(key.public.id, subject, expires)
    signature = key.sign(_DOMAIN + canonical(statement)).hex()
    return canonical({"statement": statement, "signature": signature})


def problem_of(data: bytes, key: PublicKey, subject: Subject, today: datetime.date) -> str | None:
    """Why these bytes are no valid signature of `key` over `subject`; None where they are one."""
    try:
        statement, signature = _parse(data)
    except CorruptError as error:
        return str(error)
    if statement["format"] != FORMAT or statement["algorithm"] != ALGORITHM:
        return f"format {statement['format']} with {statement['algorithm'][:40]!r} is unknown to this release"
    if statement != _statement(key.id, subject, statement["expires"]):
        return f"it was made for {statement['model'][:128]}@{statement['version'][:40]} by {statement['key'][:12]}"
    if not key.verifies(signature, _DOMAIN + canonical(statement)):
        return "it does not verify: altered, or made with another key"
    expires = statement["expires"]
    expired = expires is not None and datetime.date.fromisoformat(expires) < today
    return f"it expired on {expires}" if expired else None


def misfiled(data: bytes, manifest: str, key_id: str) -> str | None:
    """Why these bytes cannot be the signature that their place promises; whether they verify, only a key can tell."""
    try:
        statement = _parse(data)[0]
    except CorruptError as error:
        return str(error)
    if (statement["manifest"], statement["key"]) != (manifest, key_id):
        return f"it was made for {statement['manifest'][:71]} by {statement['key'][:12]}"
    return None


def put_signature(store: Store, key: PrivateKey, subject: Subject, expires: str | None = None) -> bool:
    """Sign, and file the signature; False where a valid one of this key was there already.

    It is written to a free place. What is no valid signature in that place (expired, altered) is replaced: it was worth
    nothing. Raises ConflictError where the store does not keep it.
    """
    today = datetime.datetime.now(datetime.UTC).date()
    data = encode_signature(key, subject, expires)
    problem = problem_of(data, key.public, subject, today)
    if problem is not None:
        raise UsageError(f"{subject}: this signature would hold at no time: {problem}")
    place = signature_key(subject.manifest, key.public.id)
    held = _held(store, place)
    if held is not None and problem_of(held, key.public, subject, today) is None:
        return False
    if held is not None:
        store.put(place, data)
    else:
        store.create(place, data)
    kept = _held(store, place)
    if kept is None or problem_of(kept, key.public, subject, today) is not None:
        raise ConflictError(f"{store.url}: {place} does not hold the signature just written; run it again")
    return True


def stored_problem(store: Store, key: PublicKey, subject: Subject) -> str | None:
    """Why the store holds no valid signature of `key` over `subject`; None where it does."""
    data = _held(store, signature_key(subject.manifest, key.id))
    today = datetime.datetime.now(datetime.UTC).date()
    return "there is none" if data is None else problem_of(data, key, subject, today)


def parse_day(text: str, what: str) -> datetime.date:
    """A day such as 2030-01-31. Raises UsageError for anything else."""
    try:
        if _DATE.fullmatch(text):
            return datetime.date.fromisoformat(text)
    except ValueError:
        pass
    raise UsageError(f"{what} {text[:40]!r} is not a day; write it as 2030-01-31")


def _statement(key_id: str, subject: Subject, expires: str | None) -> dict[str, Any]:
    return {"format": FORMAT, "algorithm": ALGORITHM, "key": key_id, **asdict(subject), "expires": expires}


def _parse(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Statement and signature in a file's bytes. Raises CorruptError for any but their one form."""
    value = parse_object(data, "the signature", limit=MAX_SIGNATURE)
    statement, signature = value.get("statement"), value.get("signature")
    well_formed = (
        value.keys() == {"statement", "signature"}
        and isinstance(statement, dict)
        and statement.keys() == {*_FIELDS, "expires"}
        and all(type(statement[name]) is kind for name, kind in _FIELDS.items())
        and isinstance(signature, str)
        and _SIGNATURE.fullmatch(signature)
        and canonical(value) == data
    )
    if not well_formed or not isinstance(statement, dict) or not isinstance(signature, str):
        raise CorruptError("the signature is malformed")
    try:
        if statement["expires"] is not None:
            parse_day(statement["expires"], "expires")
    except (UsageError, TypeError) as error:
        raise CorruptError(f"the signature is malformed: {error}") from error
    return statement, bytes.fromhex(signature)


def _held(store: Store, place: str) -> bytes | None:
    """What stands in a signature's place; nothing that is too long for one is read."""
    try:
        return store.get(place, MAX_SIGNATURE)
    except CorruptError:
        return b""
