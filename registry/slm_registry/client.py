"""The client: one class over a store and a cache."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_registry import names
from slm_registry.aliases import UNSET, Mover, _Unset
from slm_registry.blobs import read_json_blob, read_manifest
from slm_registry.cache import Cache, default_cache
from slm_registry.errors import NotFoundError, RegistryError, UsageError, near
from slm_registry.hashing import CHUNK
from slm_registry.history import History
from slm_registry.log import Entry, ModelState
from slm_registry.manifest import MAX_CONFIG, BundleFile, Manifest, parse_lineage
from slm_registry.offline import Known, Memory
from slm_registry.progress import Progress
from slm_registry.publish import Published, Publisher
from slm_registry.stores import Store, open_store

if TYPE_CHECKING:
    from slm_registry.runtime import TextClassifier

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
    as_of: str = ""


class Registry:
    """A model registry in a folder or an S3 bucket. Making one contacts nothing.

    `url` is a folder, `file:///folder` or `s3://bucket/prefix?endpoint_url=...`. `cache` is a folder, by default
    $SLM_REGISTRY_CACHE or ~/.cache/slm-registry. `actor` is who the log names, by default $SLM_REGISTRY_ACTOR or
    user@host. `cache_size` bounds the cache in bytes, by default $SLM_REGISTRY_CACHE_SIZE. Where the store cannot be
    reached, or `offline` says not to, resolve, pull and load go on with its last answer (as_of), unless that is older
    than `max_age` seconds. `progress` shows transfers. Every method raises errors below RegistryError only.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Store,
        *,
        cache: str | os.PathLike[str] | None = None,
        actor: str | None = None,
        chunk_size: int = CHUNK,
        cache_size: int | None = None,
        offline: bool = False,
        max_age: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.store: Store = open_store(url) if isinstance(url, str | os.PathLike) else url
        root = default_cache() if cache is None else Path(cache)
        self.cache = Cache(root, self.store, limit=cache_size, progress=progress)
        self._memory = Memory(root, self.store, offline=offline, max_age=max_age)
        self._progress = progress
        self._actor = actor
        self._chunk_size = chunk_size

    def publish(
        self,
        folder: str | os.PathLike[str],
        name: str,
        *,
        version: str | None = None,
        lineage: Mapping[str, Any],
        alias: str | None = None,
        reason: str = "",
        repair: bool = False,
    ) -> Published:
        """Publish a bundle's folder as a new version, and point an alias at it if one is named.

        Without a version: where the newest one holds the same files it is returned with `created=False`, otherwise
        the next patch version is made (the first is 1.0.0). With one: the same content again is success, other
        content raises ConflictError. Raises RefusedError for forbidden content, before anything is uploaded.
        With `repair` every file's blob is read back first, and one that is damaged is written again.
        """
        publisher = self._publisher(name)
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
        return Mover(self.store, name, self._actor or _default_actor()).move(
            alias, version, expected=expected, reason=reason
        )

    def models(self) -> tuple[str, ...]:
        """The names of all models, sorted."""
        return tuple(name for name in self._names() if History(self.store, name).state().versions)

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
        """The version that a reference stands for now. Raises NotFoundError, suggesting near names."""
        parsed = names.parse_ref(ref)
        known = self._known(parsed.model)
        version = _select(parsed, known.state)
        return Resolved(parsed.model, version, known.state.versions[version].manifest, known.as_of_text)

    def pull(self, ref: str, into: str | os.PathLike[str] | None = None) -> Path:
        """A folder with the version's files, verified: in the cache (do not write there), or copied to `into`."""
        manifest = self._pulled(ref)[0]
        return self.cache.snapshot(manifest) if into is None else self.cache.export(manifest, Path(into))

    def load(self, ref: str, threads: int = 1, max_length: int | None = None) -> TextClassifier:
        """A ready model. Its files are pulled where they are missing and verified in any case."""
        manifest, as_of = self._pulled(ref)
        folder = self.cache.snapshot(manifest)
        from slm_registry.runtime import load_folder

        model = load_folder(folder, threads=threads, max_length=max_length)
        model.as_of = as_of
        return model

    def _names(self) -> tuple[str, ...]:
        """What stands where models stand and can be one: somebody's notes beside them are no concern."""
        return tuple(name for name in self.store.children("models") if names.is_model_name(name))

    def _publisher(self, name: str) -> Publisher:
        actor = self._actor or _default_actor()
        return Publisher(self.store, names.model_name(name), actor, self._chunk_size, self._progress)

    def _state(self, name: str) -> ModelState:
        state = History(self.store, names.model_name(name)).state()
        if not state.versions:
            known = self._names()
            if not known:
                raise NotFoundError(f"{self.store.url} holds no model; publish one first, or check the address")
            raise NotFoundError(f"{self.store.url} has no model {name!r}; {near(name, known)}")
        return state

    def _known(self, name: str) -> Known:
        """The model's state as the store tells it or, where it cannot be reached, as it last did."""
        return self._memory.latest(names.model_name(name), lambda: self._state(name))

    def _pulled(self, ref: str) -> tuple[Manifest, str]:
        """The manifest of what a reference stands for, both kept in the cache, and the age of the answer."""
        parsed = names.parse_ref(ref)
        known = self._known(parsed.model)
        manifest = self.cache.manifest(known.state, _select(parsed, known.state))
        self._memory.remember(known)
        return manifest, known.as_of_text

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
