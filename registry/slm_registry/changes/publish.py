"""Publishing a bundle, in the order that makes a half-done publish invisible.

lease -> blobs that are missing -> each checked -> manifest -> signature -> log entry, the commit -> lease dropped.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slm_registry import names
from slm_registry.bundles.contents import read_bundle
from slm_registry.bundles.facts import read_facts
from slm_registry.bundles.manifest import BundleFile, encode_config, encode_manifest
from slm_registry.changes import leases
from slm_registry.changes.aliases import Mover
from slm_registry.errors import ConflictError, CorruptError, PolicyError
from slm_registry.log.entries import check_words
from slm_registry.log.history import History, Operation
from slm_registry.log.state import ModelState
from slm_registry.plumbing.hashing import CHUNK, CHUNKS, PREFIXES, Form, digest_of
from slm_registry.plumbing.progress import Progress
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore
from slm_registry.transfer.blobs import read_manifest, upload
from slm_registry.trust.keys import PrivateKey
from slm_registry.trust.memory import Witness
from slm_registry.trust.signatures import Subject, put_signature, stored_problem

logger = logging.getLogger("slm_registry")
_ROUNDS = 50
# How many manifests are read to learn which files need not be read back.
_TRUSTED_VERSIONS = 8


class _TakenError(ConflictError):
    """The version that was chosen for the publisher went to another one meanwhile."""


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

    def blobs(self, files: Sequence[BundleFile]) -> set[str]:
        """The digests of every blob that the version consists of."""
        return {file.digest for file in files} | {digest_of(self.config), self.digest}


@dataclass(frozen=True, slots=True)
class Publisher:
    """Writes versions and aliases of one model into a store, in the name of `actor`, signed where there is a signer."""

    store: Store
    model: str
    actor: str
    witness: Witness
    chunk_size: int = CHUNK
    signer: PrivateKey | None = None
    progress: Progress | None = None
    form: Form = PREFIXES

    def publish(
        self,
        folder: Path,
        *,
        version: str | None,
        lineage: Mapping[str, Any],
        alias: str | None,
        reason: str,
        repair: bool = False,
    ) -> Published:
        """Publish a folder; see `Registry.publish`."""
        names.model_name(self.model)
        check_words(self.actor, reason)
        if version is not None:
            names.version_key(version)
        if alias is not None:
            names.alias_name(alias)
        # Made before the first look: a hint left over from a store that was set back is not taken for what was seen.
        history = self.witness.history(self.model)
        with contextlib.ExitStack() as stack:
            # In a folder each new file is copied while it is digested: the digest of what it names is then in one pass.
            copying = stack.enter_context(self.store.copying()) if isinstance(self.store, FolderStore) else None
            held = self._newest_files() if copying else ()
            # What is copied at once is right at once; what is sent later is compared, then, with its checksums.
            files = read_bundle(folder, self.chunk_size, copying, held, form=self.form, checksums=copying is None)
            if repair:
                self._upload(folder, files)
            published = self._publish_files(history, folder, files, version, lineage, reason)
        if alias is None:
            return published
        Mover(self.store, self.model, self.actor, history).move(alias, published.version, reason=reason)
        return replace(published, alias=alias)

    def _publish_files(
        self,
        history: History,
        folder: Path,
        files: Sequence[BundleFile],
        version: str | None,
        lineage: Mapping[str, Any],
        reason: str,
    ) -> Published:
        for _ in range(_ROUNDS):
            state = self.witness.state(self.model)
            if version is None and (held := self._held(state, folder, files, lineage)) is not None:
                return held
            chosen = version or names.next_patch(state.highest())
            prepared = self._prepare_as_held(state, chosen, folder, files, lineage)
            size = sum(file.size for file in files)
            entry = {
                "version": prepared.version,
                "manifest": prepared.digest,
                "size": size,
                "facts": read_facts(folder, lineage),
            }
            decide = _commit(self.model, entry, chosen_here=version is None)
            try:
                if decide(state) is None:
                    # No lease: its log entry stands, and with it no collection takes what the version needs.
                    self._bring(folder, files, prepared, {file.digest for file in files})
                    return Published(self.model, prepared.version, prepared.digest, created=False)
                with leases.held(self.store, self.model, self.actor, prepared.blobs(files)) as lease:
                    self._bring(folder, files, prepared, self._trusted(state))
                    while lease.lapsed():
                        self._bring(folder, files, prepared)
                    created = history.append(decide, actor=self.actor, reason=reason)[1]
            except _TakenError:
                continue
            return Published(self.model, prepared.version, prepared.digest, created)
        raise ConflictError(f"model {self.model!r}: other publishers were first {_ROUNDS} times; run it again")

    def _upload(
        self, folder: Path, files: Sequence[BundleFile], small: Sequence[bytes] = (), trusted: Collection[str] = ()
    ) -> None:
        upload(self.store, folder, files, small, chunk_size=self.chunk_size, trusted=trusted, progress=self.progress)

    def _newest_files(self) -> set[tuple[str, int]]:
        """Path and size of the newest version's files, which are likely to be the same again."""
        state = self.witness.state(self.model)
        return {(file.path, file.size) for file in self._files(state, state.newest())}

    def _trusted(self, state: ModelState) -> set[str]:
        """The files of this model's versions that matter most: each was checked before its version was committed."""
        versions = [state.newest(), *(alias.version for alias in state.aliases.values())]
        wanted = list(dict.fromkeys(versions))[:_TRUSTED_VERSIONS]
        return {file.digest for version in wanted for file in self._files(state, version)}

    def _files(self, state: ModelState, version: str | None) -> tuple[BundleFile, ...]:
        """A version's files; none where its manifest is damaged, which is no reason not to publish another."""
        try:
            return () if version is None else read_manifest(self.store, state, version).files
        except CorruptError as error:
            logger.warning("its files will be read back: %s", error)
            return ()

    def _held(
        self, state: ModelState, folder: Path, files: Sequence[BundleFile], lineage: Mapping[str, Any]
    ) -> Published | None:
        """The highest version, where it holds exactly these files; what is missing of it is brought.

        Raises CorruptError where its manifest is damaged and would not be the one of these files and this lineage,
        PolicyError where this publisher signs, and has not signed a manifest with another lineage.
        """
        highest = state.highest()
        if highest is None:
            return None
        digest, known = state.versions[highest].manifest, {file.digest for file in files}
        prepared = self._prepare_as_held(state, highest, folder, files, lineage)
        if prepared.digest == digest:
            self._bring(folder, files, prepared, known)
        else:
            manifest = read_manifest(self.store, state, highest)
            if manifest.file_digests() != {file.path: file.digest for file in files}:
                return None
            self._check_signed(Subject(self.model, highest, digest))
            self._upload(folder, files, trusted=known)
        return Published(self.model, highest, digest, created=False)

    def _check_signed(self, subject: Subject) -> None:
        """A manifest that somebody else wrote is not signed unseen: these files do not vouch for its lineage."""
        problem = stored_problem(self.store, self.signer.public, subject) if self.signer else None
        if problem is not None:
            raise PolicyError(
                f"{subject} holds these files with another lineage, and no signature of this key ({problem}); look at it with "
                f"`slm-registry show {subject}`, then sign it with `slm-registry sign {subject}` or publish as a version of its own"
            )

    def _prepare(
        self, version: str, files: Sequence[BundleFile], lineage: Mapping[str, Any], form: Form | None = None
    ) -> _Prepared:
        config = encode_config(self.model, version, files, lineage)
        manifest = encode_manifest(self.model, version, files, config, self.chunk_size, form or self.form)
        return _Prepared(version, config, manifest)

    def _prepare_as_held(
        self,
        state: ModelState,
        version: str,
        folder: Path,
        files: Sequence[BundleFile],
        lineage: Mapping[str, Any],
    ) -> _Prepared:
        """As `_prepare`, but in the other form where the version stands there in that one with this very content."""
        prepared, held = self._prepare(version, files, lineage), state.versions.get(version)
        if held is None or held.manifest == prepared.digest:
            return prepared
        other: Form = CHUNKS if self.form == PREFIXES else PREFIXES
        try:
            found = read_manifest(self.store, state, version)
            if found.form != other or found.file_digests() != {file.path: file.digest for file in files}:
                return prepared
            known = found.files
        except CorruptError:
            # Only the files can tell now what the manifest was.
            known = read_bundle(folder, self.chunk_size, form=other)
        as_held = self._prepare(version, known, lineage, other)
        return as_held if as_held.digest == held.manifest else prepared

    def _bring(
        self, folder: Path, files: Sequence[BundleFile], prepared: _Prepared, trusted: Collection[str] = ()
    ) -> None:
        """Everything that the version consists of, where it is not there yet."""
        self._upload(folder, files, (prepared.config, prepared.manifest), trusted)
        # Before the log entry: no reader sees a version whose signature is still to come.
        if self.signer is not None:
            put_signature(self.store, self.signer, Subject(self.model, prepared.version, prepared.digest))


def _commit(model: str, entry: Mapping[str, Any], *, chosen_here: bool) -> Callable[[ModelState], Operation | None]:
    """What the publish entry depends on: None where the version stands already, an error where it is another's."""
    version, digest = entry["version"], entry["manifest"]

    def decide(state: ModelState) -> Operation | None:
        held = state.versions.get(version)
        if held is not None and held.manifest == digest:
            return None
        if chosen_here and names.next_patch(state.highest()) != version:
            raise _TakenError(version)
        if held is not None:
            raise ConflictError(
                f"{model}@{version} holds other content: published by {held.actor} at {held.at} as "
                f"{held.manifest}, now it would be {digest}; versions never change, publish a new one"
            )
        return Operation("publish", entry)

    return decide
