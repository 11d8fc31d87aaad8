"""The client: one class over a store and a cache."""

from __future__ import annotations

import builtins
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from slm_registry import names
from slm_registry.bundles.manifest import MAX_CONFIG, Manifest, parse_lineage
from slm_registry.caching.cache import Cache, default_cache
from slm_registry.caching.offline import Answers, Known, Unasked
from slm_registry.changes.aliases import UNSET, Expected, Moved, Mover
from slm_registry.changes.marks import Marker, caution
from slm_registry.changes.publish import Published, Publisher
from slm_registry.errors import NotFoundError, PolicyError, UsageError, near
from slm_registry.finding.compare import Comparison, Side, compare
from slm_registry.finding.records import Details, Resolved, Row, rows_of, status_of
from slm_registry.finding.search import Query, make_query
from slm_registry.finding.selection import alias_meant, is_exact, select
from slm_registry.log.actor import default_actor
from slm_registry.log.entries import Entry
from slm_registry.log.history import History
from slm_registry.log.state import ModelState
from slm_registry.plumbing.hashing import CHUNK, digest_of
from slm_registry.plumbing.progress import Progress
from slm_registry.runtime.loading import load_folder
from slm_registry.runtime.model import DEFAULT_BATCH, Model
from slm_registry.stores.address import open_store
from slm_registry.stores.base import Store
from slm_registry.transfer.blobs import read_json_blob, read_manifest
from slm_registry.trust.gate import Gate
from slm_registry.trust.keys import PublicKey, default_key, read_private, read_public
from slm_registry.trust.memory import Witness
from slm_registry.trust.policy import Policy, demanding
from slm_registry.trust.sbom import bill_of_materials
from slm_registry.trust.signatures import Subject, put_signature

logger = logging.getLogger("slm_registry")
Kind = TypeVar("Kind", bound=Model)


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
    `offline` says not to ask it anything, resolve, pull and load go on with its last answer (as_of), unless that is older
    than `max_age` seconds; all else raises UnreachableError. `progress` shows transfers. Every method raises errors below RegistryError only; CorruptError where a log
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
        store = open_store(url) if isinstance(url, str | os.PathLike) else url
        self.store: Store = Unasked(store) if offline else store
        root = default_cache() if cache is None else Path(cache)
        self.cache = Cache(root, self.store, limit=cache_size, progress=progress)
        self.gate = Gate(self.store, self.cache.root, policy)
        self._witness = Witness(self.cache.root, self.store)
        self._answers = Answers(self.cache.root, self.store, max_age=max_age)
        self._progress = progress
        self._actor = actor
        self._chunk_size = chunk_size

    @property
    def actor(self) -> str:
        """Who the log names."""
        return self._actor or default_actor()

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
        `key` is the file of a private key, by default $SLM_REGISTRY_KEY: with one, what is made here is signed,
        and so is the same version where it stands already; one that holds the same files with another lineage is not,
        and raises PolicyError unless this key has signed it before.
        With `repair` every file's blob is read back first, and one that is damaged is written again.
        """
        publisher = self.publisher(name, Path(key) if key is not None else default_key())
        return publisher.publish(
            Path(folder), version=version, lineage=lineage, alias=alias, reason=reason, repair=repair
        )

    def alias(self, name: str, alias: str, version: str, *, expected: Expected = UNSET, reason: str = "") -> bool:
        """Point an alias at a version; False where it points there already.

        With `expected`, the version it must point at before (None: it must not exist), raises ConflictError where
        somebody moved it meanwhile, naming who and when; also where the version is yanked.
        """
        names.version_key(version)
        return self._mover(name, alias, expected).move(alias, version, expected=expected, reason=reason)

    def promote(
        self,
        name: str,
        alias: str,
        version: str,
        *,
        policy: str | bytes,
        policy_digest: str | None = None,
        evaluation: str = "metrics.json",
        expected: Expected = UNSET,
        reason: str = "",
    ) -> Moved:
        """Point an alias at a version that passed a gate, and record by which evaluation and which policy.

        `evaluation` is a file of the version, by path or digest; `policy` the text of the policy, kept as a blob;
        `policy_digest` what the gate says it applied. Both are checked again at the commit: PolicyError where the
        version holds no such file or the text has another digest.
        """
        names.version_key(version)
        text = policy.encode() if isinstance(policy, str) else policy
        if policy_digest is not None and policy_digest != digest_of(text):
            raise PolicyError(
                f"policy: its text has the digest {digest_of(text)}, the gate applied {str(policy_digest)[:80]}; "
                "hand in the policy that was applied"
            )
        mover = self._mover(name, alias, expected)
        return mover.promote(alias, version, evaluation=evaluation, policy=text, expected=expected, reason=reason)

    def rollback(self, name: str, alias: str, *, expected: Expected = UNSET, reason: str = "") -> Moved:
        """Point an alias back to where it was before, past versions that were yanked since.

        Doing it again goes further back. Raises ConflictError where somebody moved the alias meanwhile, NotFoundError
        where it never was elsewhere.
        """
        return self._mover(name, alias, expected).rollback(alias, expected=expected, reason=reason)

    def yank(self, name: str, version: str, *, reason: str = "") -> bool:
        """Take a version out of use: only its exact version or digest loads it, with a warning. False if it is so.

        Raises ConflictError while an alias points at it.
        """
        return self._marker(name, version).mark("yank", version, reason)

    def unyank(self, name: str, version: str, *, reason: str = "") -> bool:
        """Bring a yanked version back. False where it is not yanked."""
        return self._marker(name, version).mark("unyank", version, reason)

    def deprecate(self, name: str, version: str, *, reason: str) -> bool:
        """Warn whoever loads a version, with `reason`. False where it is deprecated already."""
        return self._marker(name, version).mark("deprecate", version, reason)

    def undeprecate(self, name: str, version: str, *, reason: str = "") -> bool:
        """Take the warning back. False where there is none."""
        return self._marker(name, version).mark("undeprecate", version, reason)

    def models(self) -> tuple[str, ...]:
        """The names of all models, sorted."""
        # One that was seen before and is gone now is an error, not a shorter list.
        found = sorted({*self._names(), *self._witness.models()})
        return tuple(name for name in found if self._witness.head(name).versions)

    def list(self, name: str | None = None) -> tuple[Row, ...]:
        """One row a version, newest version first; of one model or of all."""
        return tuple(row for state in self._states(name) for row in rows_of(state, Query(yanked=True)))

    def search(
        self,
        name: str | None = None,
        *,
        task: str | None = None,
        metrics: Sequence[str] = (),
        size: str | None = None,
        label: str | None = None,
        data: str | None = None,
        teacher: str | None = None,
        git: str | None = None,
        yanked: bool = False,
    ) -> tuple[Row, ...]:
        """The versions that satisfy every condition, as `list` gives them; of one model or of all.

        `metrics` are conditions such as "accuracy>=0.8", `size` one such as "<=20MB"; `label` is a class that the
        model knows. `data` and `git` are the digest of the training data and the commit, or at least 7 characters
        of their beginning; `teacher` is a digest or a source. Raises NotFoundError, with near names, where a word
        stands in no version.
        """
        lineage = {"data": data, "teacher": teacher, "git": git}
        query = make_query(task=task, metrics=metrics, size=size, label=label, lineage=lineage, yanked=yanked)
        states = self._states(name)
        rows = tuple(row for state in states for row in rows_of(state, query))
        if not rows:
            query.explain(version for state in states for version in state.versions.values())
        return rows

    def compare(self, left: str, right: str) -> Comparison:
        """Two versions side by side: size, metrics, files, recipe, origin."""
        return compare(self._side(left), self._side(right))

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
            status_of(record),
            record.facts,
        )

    def log(self, name: str, last: int | None = None) -> tuple[Entry, ...]:
        """All entries of a model's log, or the `last` ones, oldest first, the chain verified."""
        if last is not None and last < 1:
            raise UsageError(f"last {last}: give a number of entries, 1 or more")
        self._known(self._witness.head(names.model_name(name)))
        return History(self.store, name).entries(last)

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
        told = caution(manifest.model, manifest.version, found.known.state.versions[manifest.version])
        if told:
            logger.warning("%s", told)
        folder = self.cache.snapshot(manifest) if into is None else self.cache.export(manifest, Path(into))
        return found.resolved, folder

    @overload
    def load(
        self, ref: str, threads: int = 1, max_length: int | None = None, batch_size: int = DEFAULT_BATCH
    ) -> Any: ...

    @overload
    def load(
        self,
        ref: str,
        threads: int = 1,
        max_length: int | None = None,
        batch_size: int = DEFAULT_BATCH,
        *,
        kind: type[Kind],
    ) -> Kind: ...

    def load(
        self,
        ref: str,
        threads: int = 1,
        max_length: int | None = None,
        batch_size: int = DEFAULT_BATCH,
        *,
        kind: type[Model] = Model,
    ) -> Model:
        """A ready model, to be closed when done with; its `resolved` says which version it is.

        Its files are pulled where they are missing and verified in any case. The bundle says which kind of model it is;
        with `kind`, such as TextClassifier, another one is a UsageError (and a type checker knows what comes back).
        """
        resolved, folder = self.fetch(ref)
        release = functools.partial(self.cache.release, resolved.digest)
        try:
            model = load_folder(folder, threads=threads, max_length=max_length, batch_size=batch_size)
            if not isinstance(model, kind):
                raise UsageError(f"{ref} is for {model.task}; it was to be loaded as {kind.__name__}")
        except BaseException:
            release()
            raise
        model.resolved, model.on_close = resolved, release
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
        if self.gate.policy is None and not public:
            raise UsageError(
                "nothing to verify by; give a policy or a public key: without one a signature proves nothing"
            )
        asked = tuple(read_public(Path(file)) for file in public)
        found = self._permitted(ref)
        keys = found.keys
        if asked:
            keys += Gate(self.store, self.cache.root, demanding(asked)).check(found.subject, None)
        with self.cache.using(self._pulled(found)):
            return found.resolved, tuple({key.id: key for key in keys}.values())

    def sbom(self, ref: str) -> dict[str, Any]:
        """The version's bill of materials: a CycloneDX 1.6 document, as JSON."""
        return bill_of_materials(self.show(ref))

    def forget(self, name: str) -> bool:
        """Take a model's log as it is from now on, whatever was seen of it before. False where nothing was."""
        kept = self._answers.forget(names.model_name(name))
        return self._witness.forget(name) or kept

    def publisher(self, name: str, key: Path | None = None) -> Publisher:
        """What writes versions of a model as this registry does, signed where the file of a private key is given."""
        return Publisher(
            self.store,
            names.model_name(name),
            self.actor,
            self._witness,
            self._chunk_size,
            signer=None if key is None else read_private(key),
            progress=self._progress,
        )

    def _names(self) -> tuple[str, ...]:
        """What stands where models stand and can be one: somebody's notes beside them are no concern."""
        return tuple(name for name in self.store.children("models") if names.is_model_name(name))

    def _mover(self, name: str, alias: str, expected: Expected) -> Mover:
        names.alias_name(alias)
        if isinstance(expected, str):
            names.version_key(expected)
        history = self._witness.history(names.model_name(name))
        self._known(self._witness.head(name))
        return Mover(self.store, name, self.actor, history)

    def _marker(self, name: str, version: str) -> Marker:
        names.version_key(version)
        history = self._witness.history(names.model_name(name))
        self._known(self._witness.head(name))
        return Marker(name, self.actor, history)

    def _states(self, name: str | None) -> builtins.list[ModelState]:
        """The state of one model, or of all that have a version."""
        if name is not None:
            return [self._known(self._witness.state(names.model_name(name)))]
        found = sorted({*self._names(), *self._witness.models()})
        return [state for state in map(self._witness.state, found) if state.versions]

    def _known(self, state: ModelState) -> ModelState:
        """`state`, unless there is no such model. Raises NotFoundError then, suggesting near names."""
        if not state.versions:
            known = self._names()
            if not known:
                raise NotFoundError(f"{self.store.url} holds no model; publish one first, or check the address")
            raise NotFoundError(f"{self.store.url} has no model {state.model!r}; {near(state.model, known)}")
        return state

    def _permitted(self, ref: str) -> _Permitted:
        """The version that a reference stands for, by the store or by its last answer, past the gate."""
        parsed = names.parse_ref(ref)
        known = self._answers.latest(parsed.model, lambda: self._state(parsed))
        version = select(parsed, known.state)
        subject = Subject(parsed.model, version, known.state.versions[version].manifest)
        return _Permitted(known, subject, self.gate.check(subject, alias_meant(parsed, known.state)))

    def _pulled(self, found: _Permitted) -> Manifest:
        """The manifest of a version, kept in the cache, and with it the answer that led to it."""
        manifest = self.cache.manifest(found.known.state, found.subject.version)
        whole = functools.partial(self._witness.state, found.subject.model)
        self._answers.remember(found.known, found.subject.version, whole)
        return manifest

    def _state(self, ref: names.Ref) -> ModelState:
        """A state that knows what a reference stands for. By alias it takes two requests."""
        return self._known(self._witness.state(ref.model) if is_exact(ref) else self._witness.head(ref.model))

    def _manifest(self, ref: str) -> tuple[ModelState, Manifest]:
        parsed = names.parse_ref(ref)
        state = self._state(parsed)
        return state, read_manifest(self.store, state, select(parsed, state))

    def _side(self, ref: str) -> Side:
        details = self.show(ref)
        return Side(**{key: getattr(details, key) for key in Side.__slots__})
