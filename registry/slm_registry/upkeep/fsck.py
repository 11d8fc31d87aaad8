"""Looks at every byte of a store: each blob hashed, each log read against its hint, each reference followed."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from slm_registry import names
from slm_registry.bundles.manifest import MAX_CONFIG, MAX_MANIFEST, Manifest, parse_lineage, parse_manifest
from slm_registry.errors import CorruptError, StoreError
from slm_registry.log.entries import Entry, entry_key, parse_entry
from slm_registry.log.hints import MAX_HEAD, MAX_INDEX, Hint, encode_head, encode_index, parse_head, parse_index
from slm_registry.log.state import ModelState, fold
from slm_registry.plumbing.files import open_regular, os_errors
from slm_registry.plumbing.hashing import digest_file, digest_of
from slm_registry.plumbing.jsonio import MAX_BYTES, parse_object
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore
from slm_registry.transfer.blobs import blob_key, intact
from slm_registry.trust.memory import Witness
from slm_registry.trust.openssf import MAX_BUNDLE, PREFIX
from slm_registry.trust.signatures import MAX_SIGNATURE, SIGNATURES, misfiled
from slm_registry.upkeep.gc import removals
from slm_registry.upkeep.references import entry_numbers, model_names

_SIGNATURE_NAME = re.compile(rf"({PREFIX})?[0-9a-f]{{64}}\.json")
_STRANGER = "its name is none of a signature; it is not of this registry"


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong: what it is part of, the key where it lies, and whether it was put right.

    `part` is `entry`, `log`, `head`, `index`, `manifest`, `lineage`, `file`, `policy`, `signature`, `blob` (nothing
    refers to it) or `gc log`; `file` is the path in the bundle.
    """

    part: str
    key: str
    problem: str
    model: str | None = None
    version: str | None = None
    file: str | None = None
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a check went through, in numbers, and the damage that it met."""

    models: int
    entries: int
    versions: int
    blobs: int
    size: int
    unreferenced: int
    damage: tuple[Damage, ...]

    @property
    def left(self) -> tuple[Damage, ...]:
        """The damage that was not repaired."""
        return tuple(damage for damage in self.damage if not damage.repaired)


def check(store: Store, *, cache: Path | None = None, repair: bool = False, witness: Witness | None = None) -> Report:
    """Look at everything in a store. With `repair`, blobs that the cache folder holds intact are put back, and a hint
    that contradicts its log is written anew. A log that does not continue what the witness saw of it is damage."""
    return _Check(store, cache if repair else None, repair, witness).run()


class _UnreadableError(CorruptError):
    """A key that is there, and whose bytes the system does not give."""


class _Check:
    """One pass over a store; remembers which blobs are sound, so that each is hashed once."""

    def __init__(self, store: Store, cache: Path | None, repair: bool, witness: Witness | None) -> None:
        self._store, self._cache, self._repair, self._witness = store, cache, repair, witness
        self._sizes: dict[str, int] = {}
        self._states: dict[str, str] = {}
        self._mended: set[str] = set()
        self._used: set[str] = set()
        self._entries = self._versions = 0

    def run(self) -> Report:
        damage = [*self._hash_blobs()]
        models = model_names(self._store)
        for model in sorted({*models, *(self._witness.models() if self._witness else ())}):
            met = [*self._model(model)]
            damage += met
            # What is damaged in itself is told with more detail than that it is not what was seen.
            if not any(item.part in ("entry", "log") for item in met):
                damage += self._remembered(model)
        damage += [*self._signatures(), *self._gc_log()]
        for digest, state in sorted(self._states.items()):
            if state != "sound" and digest not in self._used:
                damage.append(self._mend(Damage("blob", blob_key(digest), state), digest))
        found = self._sizes
        unreferenced = sum(1 for digest in found if digest not in self._used)
        return Report(
            len(models), self._entries, self._versions, len(found), sum(found.values()), unreferenced, tuple(damage)
        )

    def _hash_blobs(self) -> Iterator[Damage]:
        for item in self._store.listing("blobs/sha256"):
            digest = f"sha256:{item.name}"
            if not names.is_digest(digest):
                yield Damage("blob", item.key, "its name is no digest; it is no blob of this registry")
                continue
            state = self._state_of(digest, item.size)
            # Gone since the listing: a collection took it, and if anything refers to it that is found below.
            if state != "missing":
                self._sizes[digest], self._states[digest] = item.size, state

    def _state_of(self, digest: str, size: int) -> str:
        hasher = hashlib.sha256()
        try:
            with self._one_key():
                for block in self._store.stream(blob_key(digest), 0, size + 1):
                    hasher.update(block)
        except _UnreadableError as error:
            return str(error)
        except CorruptError:
            # A link, or a folder.
            return "altered"
        if "sha256:" + hasher.hexdigest() == digest:
            return "sound"
        return "missing" if self._store.size(blob_key(digest)) is None else "altered"

    def _get(self, key: str, limit: int) -> bytes | None:
        with self._one_key():
            return self._store.get(key, limit)

    @contextlib.contextmanager
    def _one_key(self) -> Iterator[None]:
        """The system's error at one key of a folder is damage of that key, and the check goes on; a server that
        cannot be asked is another matter."""
        try:
            yield
        except StoreError as error:
            if not (isinstance(self._store, FolderStore) and isinstance(error.__cause__, OSError)):
                raise
            raise _UnreadableError(f"unreadable: {error}") from error

    def _model(self, model: str) -> Iterator[Damage]:
        # The hint first: a writer appends to the log before it writes the hint.
        hints = self._hints(model)
        log: list[Entry] = []
        holes = list(self._read_log(model, log))
        yield from holes
        yield from _chain_problems(model, log) if holes else _fold_problem(model, log)
        yield from self._check_hints(model, hints, log, whole=not holes)
        self._entries += len(log)
        for entry in log:
            if entry.op == "publish":
                self._versions += 1
                yield from self._version(model, entry)
            if entry.op == "promote":
                policy = entry.details["policy"]
                where = Damage("policy", blob_key(policy), "", model, entry.details["version"])
                bad = self._blob(where, policy, None)
                if bad is not None:
                    yield bad

    def _remembered(self, model: str) -> Iterator[Damage]:
        """A log that is sound in itself, and is not the one that was seen, or is gone."""
        try:
            if self._witness is not None:
                self._witness.head(model)
        except CorruptError as error:
            yield Damage("log", f"models/{model}/log", str(error), model)

    def _read_log(self, model: str, log: list[Entry]) -> Iterator[Damage]:
        """Read every entry that is there into `log`; what is missing or cannot be read is damage."""
        expected = 1
        for number in entry_numbers(self._store, model):
            if number > expected:
                problem = f"missing, with all up to {number - 1}, and the log goes on behind"
                yield Damage("entry", entry_key(model, expected), problem, model)
            expected = number + 1
            key = entry_key(model, number)
            try:
                data = self._get(key, MAX_BYTES)
                log.append(parse_entry(data or b"", model, number, key))
            except CorruptError as error:
                yield Damage("entry", key, str(error), model)

    def _hints(self, model: str) -> dict[str, Hint | CorruptError]:
        """The cached states that are there, by name."""
        found: dict[str, Hint | CorruptError] = {}
        for name, limit, read in (("head", MAX_HEAD, parse_head), ("index", MAX_INDEX, _index_hint)):
            try:
                data = self._get(f"models/{model}/{name}.json", limit)
                if data is not None:
                    found[name] = read(data, model)
            except CorruptError as error:
                found[name] = error
        return found

    def _check_hints(
        self, model: str, hints: Mapping[str, Hint | CorruptError], log: Sequence[Entry], *, whole: bool
    ) -> Iterator[Damage]:
        """Hints that contradict the log. One that is missing or behind is none: that is what a crash leaves."""
        if log and log[-1].format == 1:
            # A hint of that format is no longer read, and the next writer replaces it.
            return
        wrong: dict[str, str] = {}
        last = log[-1].seq if log else 0
        entries = {entry.seq: entry.digest for entry in log}
        for name, hint in hints.items():
            if isinstance(hint, CorruptError):
                wrong[name] = str(hint)
                continue
            seq, digest = hint.state.seq, hint.state.entry
            if seq > last and digest not in entries.values():
                missing = f"missing: the hint knows of {seq} entries, and the log ends at {last}"
                yield Damage("entry", entry_key(model, last + 1), missing, model)
                return
            if (whole or seq in entries) and entries.get(seq) != digest:
                wrong[name] = f"it does not agree with the log, whose entry {seq} is another"
        repaired = bool(wrong) and self._repair and whole and self._rewrite_hints(model, log)
        for name, problem in wrong.items():
            yield Damage(name, f"models/{model}/{name}.json", problem, model, repaired=repaired)

    def _rewrite_hints(self, model: str, log: Sequence[Entry]) -> bool:
        try:
            state = fold(log, ModelState(model))
            data = self._get(entry_key(model, state.seq), MAX_BYTES)
        except CorruptError:
            return False
        if data is None or digest_of(data) != state.entry:
            return False
        head = encode_head(state, data)
        self._store.put(f"models/{model}/index.json", encode_index(head, state))
        self._store.put(f"models/{model}/head.json", head)
        return True

    def _version(self, model: str, entry: Entry) -> Iterator[Damage]:
        """Everything that a published version leads to."""
        version, digest = entry.details["version"], entry.details["manifest"]
        where = Damage("manifest", blob_key(digest), "", model, version)
        bad = self._blob(where, digest, None)
        if bad is not None:
            yield bad
            if not bad.repaired:
                return
        try:
            manifest = parse_manifest(self._get(where.key, MAX_MANIFEST) or b"", model, version)
        except CorruptError as error:
            yield replace(where, problem=str(error))
            return
        yield from self._lineage(manifest)
        for file in manifest.files:
            found = Damage("file", blob_key(file.digest), "", model, version, file.path)
            bad = self._blob(found, file.digest, file.size)
            if bad is not None:
                yield bad

    def _lineage(self, manifest: Manifest) -> Iterator[Damage]:
        where = Damage("lineage", blob_key(manifest.config), "", manifest.model, manifest.version)
        bad = self._blob(where, manifest.config, manifest.config_size)
        if bad is not None:
            yield bad
        if bad is None or bad.repaired:
            try:
                parse_lineage(self._get(where.key, MAX_CONFIG) or b"", where.key)
            except CorruptError as error:
                yield replace(where, problem=str(error))

    def _blob(self, where: Damage, digest: str, size: int | None) -> Damage | None:
        """What is wrong with a blob that something refers to, put right where it can be."""
        self._used.add(digest)
        if digest not in self._states:
            # Not in the listing: missing, or brought by a publish that began after it.
            length = self._store.size(blob_key(digest))
            self._states[digest] = "missing" if length is None else self._state_of(digest, length)
            if length is not None:
                self._sizes[digest] = length
        if self._states[digest] != "sound":
            return self._mend(replace(where, problem=self._states[digest]), digest)
        if size is not None and self._sizes.get(digest, size) != size:
            return replace(where, problem=f"the manifest says {size} bytes, the blob has {self._sizes[digest]}")
        return None

    def _mend(self, damage: Damage, digest: str) -> Damage:
        """The damage, repaired where the cache holds the right bytes. Every user of a blob is named, it is put back once."""
        name = digest.removeprefix("sha256:")
        for path in (self._cache / "blobs" / name, self._cache / "manifests" / name) if self._cache else ():
            if digest not in self._mended and _holds(path, digest):
                self._store.put_blob(damage.key, path, name)
                if intact(self._store, digest, path.stat().st_size):
                    self._mended.add(digest)
        return replace(damage, repaired=digest in self._mended)

    def _signatures(self) -> Iterator[Damage]:
        """Signatures that are not what their place says. Over manifests that nothing refers to they wait for gc."""
        for folder in self._store.children(SIGNATURES):
            if not names.is_digest(f"sha256:{folder}"):
                yield Damage("signature", f"{SIGNATURES}/{folder}", _STRANGER)
                continue
            for name in self._store.children(f"{SIGNATURES}/{folder}"):
                key = f"{SIGNATURES}/{folder}/{name}"
                problem = self._signature(key, folder, name) if _SIGNATURE_NAME.fullmatch(name) else _STRANGER
                if problem is not None:
                    yield Damage("signature", key, problem)

    def _signature(self, key: str, folder: str, name: str) -> str | None:
        """What is wrong with a signature, of ours or of OpenSSF's form; None where one is gone again."""
        bundle = name.startswith(PREFIX)
        try:
            data = self._get(key, MAX_BUNDLE if bundle else MAX_SIGNATURE)
            if data is None:
                return None
            if bundle:
                parse_object(data, key, limit=MAX_BUNDLE)
                return None
            problem = misfiled(data, f"sha256:{folder}", name.removesuffix(".json"))
        except CorruptError as error:
            problem = str(error)
        return problem and f"{problem}; sign the version again"

    def _gc_log(self) -> Iterator[Damage]:
        try:
            with self._one_key():
                removals(self._store)
        except CorruptError as error:
            yield Damage("gc log", "gc/log", str(error))


def _index_hint(data: bytes, model: str) -> Hint:
    return parse_index(data, model)[0]


def _fold_problem(model: str, log: Sequence[Entry]) -> Iterator[Damage]:
    """A whole log that does not add up; the message names the entry."""
    try:
        fold(log, ModelState(model))
    except CorruptError as error:
        yield Damage("log", f"models/{model}/log", str(error), model)


def _chain_problems(model: str, log: Sequence[Entry]) -> Iterator[Damage]:
    """Neighbours, in a log with holes, of which the second does not name the first."""
    for before, entry in pairwise(log):
        if entry.seq == before.seq + 1 and entry.prev != before.digest:
            key = entry_key(model, entry.seq)
            yield Damage("log", key, "it does not follow the entry before: the log was forked or altered", model)


def _holds(path: Path, digest: str) -> bool:
    """Whether a file of the cache is there, with exactly these bytes."""
    with os_errors("read", path):
        try:
            with open_regular(path) as file:
                return digest_file(file).digest == digest
        except (FileNotFoundError, NotADirectoryError, CorruptError):
            return False
