"""A file from a store into an open partial file: its chunks side by side, each wrong one fetched again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from slm_registry.bundles.manifest import BundleFile
from slm_registry.errors import CorruptError
from slm_registry.plumbing.hashing import PREFIXES, FileDigests, Form, Span
from slm_registry.plumbing.parallel import each, started
from slm_registry.plumbing.partial import blocks_at, hash_at, write_at
from slm_registry.plumbing.progress import Moved
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore
from slm_registry.transfer.blobs import blob_key


class Download:
    """One file on its way into one descriptor."""

    def __init__(
        self,
        store: Store,
        file: BundleFile,
        chunk_size: int,
        descriptor: int,
        moved: Moved,
        lanes: int,
        form: Form = PREFIXES,
    ) -> None:
        self._form = form
        self._lanes = lanes
        self._store = store
        self._file = file
        self._key = blob_key(file.digest)
        self._descriptor = descriptor
        self._moved = moved
        self._spans = list(FileDigests(file.size, file.digest, file.chunks, chunk_size).spans())

    def run(self) -> None:
        """Bring the descriptor to exactly the file's bytes, whatever of them it holds already.

        Raises CorruptError where the store does not give them, naming the chunk.
        """
        begun = os.fstat(self._descriptor).st_size
        if self._form == PREFIXES:
            self._walk(begun)
        else:
            self._whole_then_chunks(begun)

    def _walk(self, begun: int) -> None:
        """Hash the file from its front behind what lands: each chunk's end says whether all up to there is right."""
        os.ftruncate(self._descriptor, min(begun, self._file.size))
        absent = [span for span in self._spans if span[1] > begun]
        hasher = hashlib.sha256()
        with started(self._fetch, absent, self._lanes) as fetching:
            pending = {span[0]: future for span, future in zip(absent, fetching, strict=True)}
            try:
                for span in self._spans:
                    if span[0] in pending:
                        pending[span[0]].result()
                    hasher = self._sound(hasher, span, tries=2 if span[0] in pending else 3)
            except CorruptError:
                # The other chunks land all the same: repaired, the store is asked for the wrong one alone.
                for future in fetching:
                    future.exception()
                raise
        if f"sha256:{hasher.hexdigest()}" != self._file.digest:
            raise CorruptError(f"{self._file.path}: its chunks are right and the whole is not: a false manifest")

    def _sound(self, before: hashlib._Hash, span: Span, tries: int) -> hashlib._Hash:
        """The hasher after a chunk, which is fetched again where that hasher says that it is wrong."""
        for again in range(tries):
            if again:
                self._fetch(span)
            hasher = before.copy()
            for block in blocks_at(self._descriptor, span[0], span[1]):
                hasher.update(block)
            if hasher.hexdigest() == span[2]:
                return hasher
        raise self._bad(span)

    def _whole_then_chunks(self, begun: int) -> None:
        """The way of manifests that hold each chunk's own digest."""
        if self._whole(self._wrong() if begun else self._spans):
            return
        # The digest of the whole does not say where: the chunks do.
        wrong = self._wrong()
        each(self._fetch_checked, wrong, self._lanes)
        if not self._whole(()):
            raise CorruptError(
                f"{self._file.path}: chunks right but the whole not {self._file.digest}: a false manifest"
            )

    def _wrong(self) -> list[Span]:
        right = each(lambda span: hash_at(self._descriptor, span[0], span[1]) == span[2], self._spans)
        return [span for span, fine in zip(self._spans, right, strict=True) if not fine]

    def _whole(self, missing: Sequence[Span]) -> bool:
        """Fetch what is missing, hash the file behind it as it lands, and answer whether it is the right one."""
        hasher = hashlib.sha256()
        with started(self._fetch, missing, self._lanes) as fetching:
            pending = {span[0]: future for span, future in zip(missing, fetching, strict=True)}
            for start, end, _ in self._spans:
                if start in pending:
                    pending[start].result()
                for block in blocks_at(self._descriptor, start, end):
                    hasher.update(block)
        os.ftruncate(self._descriptor, self._file.size)
        return f"sha256:{hasher.hexdigest()}" == self._file.digest

    def _fetch(self, span: Span) -> None:
        """Fetch one chunk as it comes."""
        at, end, _ = span
        if isinstance(self._store, FolderStore):
            self._moved(self._store.copy_range(self._key, at, end, self._descriptor))
            return
        for block in self._store.stream(self._key, at, end):
            # A store that sends more than it was asked for writes into no other chunk.
            write_at(self._descriptor, block[: end - at], at)
            at += len(block)
            self._moved(len(block))
            if at >= end:
                return

    def _fetch_checked(self, span: Span) -> None:
        self._fetch(span)
        if hash_at(self._descriptor, span[0], span[1]) != span[2]:
            raise self._bad(span)

    def _bad(self, span: Span) -> CorruptError:
        return CorruptError(
            f"{self._file.path}: chunk {self._spans.index(span)} (bytes {span[0]} to {span[1] - 1}) is missing or altered in "
            f"{self._store.url} ({self._key}); publish the same files with --repair to repair it"
        )
