"""Publishing a bundle, in the order that makes a half-done publish invisible.

lease -> blobs that are missing -> each checked -> manifest -> (signature) -> log entry, the commit -> lease dropped.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slm_registry import names
from slm_registry.bundle import read_bundle
from slm_registry.errors import ConflictError, CorruptError, NotFoundError, StoreError, UsageError, near
from slm_registry.hashing import CHUNK, digest_of
from slm_registry.history import History, Operation
from slm_registry.jsonio import canonical
from slm_registry.log import MAX_TEXT, Alias, ModelState
from slm_registry.manifest import MAX_MANIFEST, BundleFile, Manifest, encode_config, encode_manifest, parse_manifest
from slm_registry.stores import Store

logger = logging.getLogger("slm_registry")


_ROUNDS = 50


class _TakenError(ConflictError):
    """The version that was chosen for the publisher went to another one meanwhile."""


class _Unset:
    """The value of an argument that was not given, where None is a value of its own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` led to. `created` is False where the store held it already."""

    model: str
    version: str
    digest: str
    created: bool
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A version ready to upload: the bytes of its two JSON blobs beside the files."""

    version: str
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


@dataclass(frozen=True, slots=True)
class Publisher:
    """Writes versions and aliases of one model into a store, in the name of `actor`."""

    store: Store
    model: str
    actor: str
    chunk_size: int = CHUNK

    def publish(
        self, folder: Path, *, version: str | None, lineage: Mapping[str, Any], alias: str | None, reason: str
    ) -> Published:
        """Publish a folder; see `Registry.publish`."""
        names.model_name(self.model)
        self._check_words(reason)
        if version is not None:
            names.version_key(version)
        if alias is not None:
            names.alias_name(alias)
        files = read_bundle(folder, self.chunk_size)
        published = self._publish_files(folder, files, version, lineage, reason)
        if alias is None:
            return published
        self.move_alias(alias, published.version, reason=reason)
        return replace(published, alias=alias)

    def move_alias(self, alias: str, version: str, *, expected: str | _Unset | None = UNSET, reason: str = "") -> bool:
        """Point an alias at a version; False where it is there already. See `Registry.alias`."""
        self._check_words(reason)

        def decide(state: ModelState) -> Operation | None:
            if version not in state.versions:
                raise NotFoundError(f"model {self.model!r} has no version {version}; {near(version, state.versions)}")
            held = state.aliases.get(alias)
            at = held.version if held else None
            if at == version and (isinstance(expected, _Unset) or expected == version):
                return None
            if not isinstance(expected, _Unset) and at != expected:
                raise ConflictError(_moved(self.model, alias, held, expected))
            return Operation("alias", {"alias": alias, "version": version, "expected": at})

        return History(self.store, self.model).append(decide, actor=self.actor, reason=reason)[1]

    def _check_words(self, reason: str) -> None:
        """Before any work: the log takes what people wrote, within bounds."""
        for field, value in (("actor", self.actor), ("reason", reason)):
            if not isinstance(value, str) or len(value) > MAX_TEXT:
                raise UsageError(f"{field} {str(value)[:40]!r}...: give text of at most {MAX_TEXT} characters")
            canonical(value)

    def _publish_files(
        self, folder: Path, files: Sequence[BundleFile], version: str | None, lineage: Mapping[str, Any], reason: str
    ) -> Published:
        history = History(self.store, self.model)
        for _ in range(_ROUNDS):
            state = history.state()
            if version is None and (held := self._held(state, files)) is not None:
                return held
            prepared = self._prepare(version or names.next_patch(state.newest()), files, lineage)
            decide = _commit(self.model, prepared, files, chosen_here=version is None)
            try:
                if decide(state) is None:
                    return Published(self.model, prepared.version, prepared.digest, created=False)
                with self._lease(files, prepared):
                    self._upload(folder, files, prepared)
                    created = history.append(decide, actor=self.actor, reason=reason)[1]
            except _TakenError:
                continue
            return Published(self.model, prepared.version, prepared.digest, created)
        raise ConflictError(f"model {self.model!r}: other publishers were first {_ROUNDS} times; run it again")

    def _held(self, state: ModelState, files: Sequence[BundleFile]) -> Published | None:
        """The newest version, where it holds exactly these files."""
        newest = state.newest()
        if newest is None:
            return None
        manifest = read_manifest(self.store, state, newest)
        if manifest.file_digests() != {file.path: file.digest for file in files}:
            return None
        return Published(self.model, newest, manifest.digest, created=False)

    def _prepare(self, version: str, files: Sequence[BundleFile], lineage: Mapping[str, Any]) -> _Prepared:
        config = encode_config(self.model, version, files, lineage)
        return _Prepared(version, config, encode_manifest(self.model, version, files, config, self.chunk_size))

    @contextlib.contextmanager
    def _lease(self, files: Sequence[BundleFile], prepared: _Prepared) -> Iterator[None]:
        """Tell a garbage collector which blobs are about to be referenced."""
        key = f"leases/{uuid.uuid4().hex}.json"
        blobs = sorted({file.digest for file in files} | {digest_of(prepared.config), prepared.digest})
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        lease = {"format": 1, "model": self.model, "actor": self.actor, "at": at, "blobs": blobs}
        if not self.store.create(key, canonical(lease)):
            raise StoreError(f"{self.store.url}: the lease {key} exists already; run it again")
        try:
            yield
        finally:
            try:
                self.store.delete(key)
            except StoreError as error:
                # It expires by itself, and must not hide what happened under it.
                logger.warning("the lease %s was not removed: %s", key, error)

    def _upload(self, folder: Path, files: Sequence[BundleFile], prepared: _Prepared) -> None:
        for file in {file.digest: file for file in files}.values():
            key = blob_key(file.digest)
            if intact(self.store, file.digest, file.size):
                continue
            self.store.put_blob(key, folder / file.path, file.digest.removeprefix("sha256:"))
            if not intact(self.store, file.digest, file.size):
                raise CorruptError(f"{self.store.url}: {key} ({file.path}) reads back altered; run it again")
        for data in (prepared.config, prepared.manifest):
            key = blob_key(digest_of(data))
            if self.store.get(key, len(data)) != data:
                self.store.put(key, data)
                if self.store.get(key, len(data)) != data:
                    raise CorruptError(f"{self.store.url}: {key} reads back altered; run it again")


def blob_key(digest: str) -> str:
    """Where the bytes with this digest lie."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def intact(store: Store, digest: str, size: int) -> bool:
    """Whether the store holds these bytes, by reading them back: a store's own checksum is only its word."""
    key = blob_key(digest)
    if store.size(key) != size:
        return False
    hasher = hashlib.sha256()
    for block in store.stream(key, 0, size):
        hasher.update(block)
    return "sha256:" + hasher.hexdigest() == digest


def read_manifest(store: Store, state: ModelState, version: str) -> Manifest:
    """The manifest of a published version. Raises CorruptError where it is missing or altered."""
    digest = state.versions[version].manifest
    data = read_json_blob(store, digest, MAX_MANIFEST, f"manifest of {state.model}@{version}")
    return parse_manifest(data, state.model, version)


def read_json_blob(store: Store, digest: str, limit: int, what: str) -> bytes:
    """A small blob, checked; asked for a second time where the first answer is not what its name says."""
    for _ in range(2):
        data = store.get(blob_key(digest), limit)
        if data is not None and digest_of(data) == digest:
            return data
    state = "missing" if data is None else "altered"
    raise CorruptError(f"{what}: {store.url}: {blob_key(digest)} is {state}; publish the version again to repair it")


def _commit(
    model: str, prepared: _Prepared, files: Sequence[BundleFile], *, chosen_here: bool
) -> Callable[[ModelState], Operation | None]:
    """What the publish entry depends on: None where the version stands already, an error where it is another's."""

    def decide(state: ModelState) -> Operation | None:
        held = state.versions.get(prepared.version)
        if held is not None and held.manifest == prepared.digest:
            return None
        if chosen_here and names.next_patch(state.newest()) != prepared.version:
            raise _TakenError(prepared.version)
        if held is not None:
            raise ConflictError(
                f"{model}@{prepared.version} holds other content: published by {held.actor} at {held.at} as "
                f"{held.manifest}, now it would be {prepared.digest}; versions never change, publish a new one"
            )
        size = sum(file.size for file in files)
        return Operation("publish", {"version": prepared.version, "manifest": prepared.digest, "size": size})

    return decide


def _moved(model: str, alias: str, held: Alias | None, expected: str | None) -> str:
    found = "does not exist"
    if held is not None:
        why = f" ({held.reason})" if held.reason else ""
        found = f"is at {held.version}, moved by {held.actor} at {held.at}{why}"
    wanted = f"at {expected}" if expected else "not to exist"
    return f"{model}@{alias} {found}; it was expected {wanted}; look at the log and decide again"
