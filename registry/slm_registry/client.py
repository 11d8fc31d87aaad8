"""The client: one class over a store and a cache."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_registry import names
from slm_registry.aliases import UNSET, Mover, _Unset
from slm_registry.blobs import read_json_blob, read_manifest
from slm_registry.cache import Cache, default_cache
from slm_registry.errors import NotFoundError, RegistryError, UsageError, near
from slm_registry.gate import Gate
from slm_registry.hashing import CHUNK
from slm_registry.history import History
from slm_registry.keys import PublicKey, default_key, read_private, read_public
from slm_registry.log import Entry, ModelState
from slm_registry.manifest import MAX_CONFIG, BundleFile, Manifest, parse_lineage
from slm_registry.memory import Witness
from slm_registry.offline import Answers, Known
from slm_registry.policy import Policy, default_policy, demanding, read_policy
from slm_registry.progress import Progress
from slm_registry.publish import Published, Publisher
from slm_registry.runtime import DEFAULT_BATCH, TextClassifier, load_folder
from slm_registry.sbom import bill_of_materials
from slm_registry.signatures import Subject, put_signature
from slm_registry.stores import Store, open_store

_BARE_ALIAS = "production"


@dataclass(frozen=True, slots=True)
class Row:
    """One version in a listing; `size` is the sum of its files in bytes."""

    model: str
    version: str
    aliases: tuple[str, ...]
    size: int
    digest: str
    actor: str
    at: str


@dataclass(frozen=True, slots=True)
class Details:
    """All there is to know about a version."""

    model: str
    version: str
    digest: str
    aliases: tuple[str, ...]
    size: int
    actor: str
    at: str
    reason: str
    files: tuple[BundleFile, ...]
    lineage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference stands for. `as_of` is when the store said so: now, or before where it cannot be reached."""

    model: str
    version: str
    digest: str
    as_of: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class _Permitted:
    """A version that the gate let through: the answer it was found by, and the keys that opened."""

    known: Known
    subject: Subject
    keys: tuple[PublicKey, ...]

    @property
    def resolved(self) -> Resolved:
        subject = self.subject
        return Resolved(subject.model, subject.version, subject.manifest, self.known.as_of_text)


class Registry:
    """A model registry in a folder or an S3 bucket. Making one contacts nothing.

    `url` is a folder, `file:///folder` or `s3://bucket/prefix?endpoint_url=...`. `cache` is a folder, by default
    $SLM_REGISTRY_CACHE or ~/.cache/slm-registry. `actor` is who the log names, by default $SLM_REGISTRY_ACTOR or
    user@host. `policy` is a policy or its file, by default $SLM_REGISTRY_POLICY; without one no signature is needed.
    `cache_size` bounds the cache in bytes, by default $SLM_REGISTRY_CACHE_SIZE. Where the store cannot be reached, or
    `offline` says not to, resolve, pull and load go on with its last answer (as_of), unless that is older than `max_age`
    seconds. `progress` shows transfers. Every method raises errors below RegistryError only; CorruptError where a log
    does not continue what this cache saw of it.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Store,
        *,
        cache: str | os.PathLike[str] | None = None,
        actor: str | None = None,
        chunk_size: int = CHUNK,
        policy: Policy | str | os.PathLike[str] | None = None,
        cache_size: int | None = None,
        offline: bool = False,
        max_age: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.store: Store = open_store(url) if isinstance(url, str | os.PathLike) else url
        root = default_cache() if cache is None else Path(cache)
        self.cache = Cache(root, self.store, limit=cache_size, progress=progress)
        given = read_policy(Path(policy)) if isinstance(policy, str | os.PathLike) else policy
        self._gate = Gate(self.store, self.cache.root, given or default_policy())
        self._witness = Witness(self.cache.root, self.store)
        self._answers = Answers(self.cache.root, self.store, offline=offline, max_age=max_age)
        self._progress = progress
        self._actor = actor
        self._chunk_size = chunk_size

    @property
    def actor(self) -> str:
        """Who the log names."""
        return self._actor or _default_actor()

    def publish(
        self,
        folder: str | os.PathLike[str],
        name: str,
        *,
        version: str | None = None,
        lineage: Mapping[str, Any],
        alias: str | None = None,
        reason: str = "",
        key: str | os.PathLike[str] | None = None,
        repair: bool = False,
    ) -> Published:
        """Publish a bundle's folder as a new version, and point an alias at it if one is named.

        Without a version: where the newest one holds the same files it is returned with `created=False`, otherwise
        the next patch version is made (the first is 1.0.0). With one: the same content again is success, other
        content raises ConflictError. Raises RefusedError for forbidden content, before anything is uploaded.
        `key` is the file of a private key, by default $SLM_REGISTRY_KEY: with one, what is made here is signed.
        With `repair` every file's blob is read back first, and one that is damaged is written again.
        """
        publisher = self.publisher(name, Path(key) if key is not None else default_key())
        return publisher.publish(
            Path(folder), version=version, lineage=lineage, alias=alias, reason=reason, repair=repair
        )

    def alias(
        self, name: str, alias: str, version: str, *, expected: str | _Unset | None = UNSET, reason: str = ""
    ) -> bool:
        """Point an alias at a version; False where it points there already.

        With `expected`, the version it must point at before (None: it must not exist), raises ConflictError where
        somebody moved it meanwhile, naming who and when.
        """
        names.alias_name(alias)
        names.version_key(version)
        if isinstance(expected, str):
            names.version_key(expected)
        self._state(name)
        return Mover(self.store, name, self.actor).move(alias, version, expected=expected, reason=reason)

    def models(self) -> tuple[str, ...]:
        """The names of all models, sorted."""
        # One that was seen before and is gone now is an error, not a shorter list.
        found = sorted({*self._names(), *self._witness.models()})
        return tuple(name for name in found if self._witness.state(name).versions)

    def list(self, name: str | None = None) -> tuple[Row, ...]:
        """One row a version, newest version first; of one model or of all."""
        rows = []
        for model in [name] if name is not None else self.models():
            state = self._state(model)
            for version in sorted(state.versions, key=names.version_key, reverse=True):
                record = state.versions[version]
                aliases = state.aliases_of(version)
                rows.append(Row(model, version, aliases, record.size, record.manifest, record.actor, record.at))
        return tuple(rows)

    def show(self, ref: str) -> Details:
        """Files, lineage and publication of the version that a reference stands for."""
        state, manifest = self._manifest(ref)
        record = state.versions[manifest.version]
        what = f"lineage of {manifest.model}@{manifest.version}"
        lineage = parse_lineage(read_json_blob(self.store, manifest.config, MAX_CONFIG, what), what)
        return Details(
            manifest.model,
            manifest.version,
            manifest.digest,
            state.aliases_of(manifest.version),
            record.size,
            record.actor,
            record.at,
            record.reason,
            manifest.files,
            lineage,
        )

    def log(self, name: str) -> tuple[Entry, ...]:
        """All entries of a model's log, oldest first, the chain verified."""
        self._state(name)
        return History(self.store, name).entries()

    def resolve(self, ref: str) -> Resolved:
        """The version that a reference stands for now.

        Raises NotFoundError, suggesting near names, and PolicyError where the policy does not permit it.
        """
        return self._permitted(ref).resolved

    def pull(self, ref: str, into: str | os.PathLike[str] | None = None) -> Path:
        """A folder with the version's files, verified: in the cache (do not write there), or copied to `into`."""
        return self.fetch(ref, into)[1]

    def fetch(self, ref: str, into: str | os.PathLike[str] | None = None) -> tuple[Resolved, Path]:
        """As `pull`, and beside the folder what the reference stood for. Raises as `resolve` does."""
        found = self._permitted(ref)
        manifest = self._pulled(found)
        folder = self.cache.snapshot(manifest) if into is None else self.cache.export(manifest, Path(into))
        return found.resolved, folder

    def load(
        self, ref: str, threads: int = 1, max_length: int | None = None, batch_size: int = DEFAULT_BATCH
    ) -> TextClassifier:
        """A ready model, to be closed when done with; its `resolved` says which version it is.

        Its files are pulled where they are missing and verified in any case.
        """
        resolved, folder = self.fetch(ref)
        model = load_folder(folder, threads=threads, max_length=max_length, batch_size=batch_size)
        model.resolved = resolved
        return model

    def sign(self, ref: str, *, key: str | os.PathLike[str], expires: str | None = None) -> tuple[Resolved, bool]:
        """Sign the version that a reference stands for; False beside it where this key has signed it before.

        `key` is the file of a private key, `expires` the last day (UTC) on which the signature holds (2030-01-31).
        """
        manifest = self._manifest(ref)[1]
        subject = Subject(manifest.model, manifest.version, manifest.digest)
        signed = put_signature(self.store, read_private(Path(key)), subject, expires)
        return Resolved(subject.model, subject.version, subject.manifest), signed

    def verify(self, ref: str, public: Sequence[str | os.PathLike[str]] = ()) -> tuple[Resolved, tuple[PublicKey, ...]]:
        """Verify every file of a version, what the policy wants, and that each key in the `public` files signed it.

        Returns the version and the keys that signed. Raises PolicyError where a signature is missing or wrong,
        UsageError where there is neither a policy nor a key to go by.
        """
        if self._gate.policy is None and not public:
            raise UsageError(
                "nothing to verify by; give a policy or a public key: without one a signature proves nothing"
            )
        asked = tuple(read_public(Path(file)) for file in public)
        found = self._permitted(ref)
        keys = found.keys
        if asked:
            keys += Gate(self.store, self.cache.root, demanding(asked)).check(found.subject, None)
        self.cache.snapshot(self._pulled(found))
        return found.resolved, tuple({key.id: key for key in keys}.values())

    def sbom(self, ref: str) -> dict[str, Any]:
        """The version's bill of materials: a CycloneDX 1.6 document, as JSON."""
        return bill_of_materials(self.show(ref))

    def forget(self, name: str) -> bool:
        """Take a model's log as it is from now on, whatever was seen of it before. False where nothing was."""
        return self._witness.forget(names.model_name(name))

    def _names(self) -> tuple[str, ...]:
        """What stands where models stand and can be one: somebody's notes beside them are no concern."""
        return tuple(name for name in self.store.children("models") if names.is_model_name(name))

    def publisher(self, name: str, key: Path | None = None) -> Publisher:
        """What writes versions of a model as this registry does, signed where the file of a private key is given."""
        return Publisher(
            self.store,
            names.model_name(name),
            self.actor,
            self._chunk_size,
            signer=None if key is None else read_private(key),
            witness=self._witness,
            progress=self._progress,
        )

    def _state(self, name: str) -> ModelState:
        state = self._witness.state(names.model_name(name))
        if not state.versions:
            known = self._names()
            if not known:
                raise NotFoundError(f"{self.store.url} holds no model; publish one first, or check the address")
            raise NotFoundError(f"{self.store.url} has no model {name!r}; {near(name, known)}")
        return state

    def _permitted(self, ref: str) -> _Permitted:
        """The version that a reference stands for, by the store or by its last answer, past the gate."""
        parsed = names.parse_ref(ref)
        known = self._answers.latest(parsed.model, lambda: self._state(parsed.model))
        version = _select(parsed, known.state)
        subject = Subject(parsed.model, version, known.state.versions[version].manifest)
        return _Permitted(known, subject, self._gate.check(subject, _alias_meant(parsed, known.state)))

    def _pulled(self, found: _Permitted) -> Manifest:
        """The manifest of a version, kept in the cache, and with it the answer that led to it."""
        manifest = self.cache.manifest(found.known.state, found.subject.version)
        self._answers.remember(found.known)
        return manifest

    def _manifest(self, ref: str) -> tuple[ModelState, Manifest]:
        parsed = names.parse_ref(ref)
        state = self._state(parsed.model)
        return state, read_manifest(self.store, state, _select(parsed, state))


def _select(ref: names.Ref, state: ModelState) -> str:
    """The version that a reference means: a bare name means production or, where that alias is not set, the newest."""
    if ref.version is not None:
        if ref.version in state.versions:
            return ref.version
        raise NotFoundError(f"model {ref.model!r} has no version {ref.version}; {near(ref.version, state.versions)}")
    if ref.digest is not None:
        for version, record in state.versions.items():
            if record.manifest == ref.digest:
                return version
        raise NotFoundError(f"model {ref.model!r} has no version with the digest {ref.digest}")
    alias = state.aliases.get(ref.alias or _BARE_ALIAS)
    if alias is not None:
        return alias.version
    newest = state.newest()
    if ref.alias is not None or newest is None:
        raise NotFoundError(f"model {ref.model!r} has no alias {ref.alias!r}; {near(ref.alias or '', state.aliases)}")
    return newest


def _alias_meant(ref: names.Ref, state: ModelState) -> str | None:
    """The alias that led to a version: the one named, or production for a bare name."""
    bare = ref.version is None and ref.digest is None and _BARE_ALIAS in state.aliases
    return ref.alias or (_BARE_ALIAS if bare else None)


def _default_actor() -> str:
    named = os.environ.get("SLM_REGISTRY_ACTOR")
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container's user may have no name at all.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


__all__ = ["Details", "Published", "Registry", "RegistryError", "Resolved", "Row", "UsageError"]
