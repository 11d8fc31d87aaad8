"""The client: one class over a store and a cache."""

from __future__ import annotations

import builtins
import getpass
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_registry import names
from slm_registry.aliases import UNSET, Expected, Moved, Mover
from slm_registry.blobs import read_json_blob, read_manifest
from slm_registry.cache import Cache, default_cache
from slm_registry.compare import Comparison, Side, compare
from slm_registry.entries import Entry
from slm_registry.errors import NotFoundError, PolicyError, UsageError, near
from slm_registry.hashing import CHUNK, digest_of
from slm_registry.history import History
from slm_registry.log import ModelState, Version
from slm_registry.manifest import MAX_CONFIG, BundleFile, Manifest, parse_lineage
from slm_registry.marks import Marker, caution
from slm_registry.publish import Published, Publisher
from slm_registry.ranges import parse_range
from slm_registry.search import Query, make_query
from slm_registry.stores import Store, open_store

if TYPE_CHECKING:
    from slm_registry.runtime import TextClassifier

logger = logging.getLogger("slm_registry")

_BARE_ALIAS = "production"
_NEWEST = "latest"


@dataclass(frozen=True, slots=True)
class Row:
    """One version in a listing; `size` is the sum of its files in bytes, `status` "yanked", "deprecated" or empty.

    `facts` is what it is searched by: task, metrics, labels, label_count, lineage; empty for entries of format 1.
    """

    model: str
    version: str
    aliases: tuple[str, ...]
    size: int
    digest: str
    actor: str
    at: str
    status: str
    facts: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The row as one JSON object."""
        return {key: getattr(self, key) for key in self.__slots__}


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
    status: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference stands for at this moment."""

    model: str
    version: str
    digest: str


class Registry:
    """A model registry in a folder or an S3 bucket. Making one contacts nothing.

    `url` is a folder, `file:///folder` or `s3://bucket/prefix?endpoint_url=...`. `cache` is a folder, by default
    $SLM_REGISTRY_CACHE or ~/.cache/slm-registry. `actor` is who the log names, by default $SLM_REGISTRY_ACTOR or
    user@host. Every method raises errors below RegistryError only.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Store,
        *,
        cache: str | os.PathLike[str] | None = None,
        actor: str | None = None,
        chunk_size: int = CHUNK,
    ) -> None:
        self.store: Store = open_store(url) if isinstance(url, str | os.PathLike) else url
        self.cache = Cache(default_cache() if cache is None else Path(cache), self.store)
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
    ) -> Published:
        """Publish a bundle's folder as a new version, and point an alias at it if one is named.

        Without a version: where the newest one holds the same files it is returned with `created=False`, otherwise
        the next patch version is made (the first is 1.0.0). With one: the same content again is success, other
        content raises ConflictError. Raises RefusedError for forbidden content, before anything is uploaded.
        """
        publisher = self._publisher(name)
        return publisher.publish(Path(folder), version=version, lineage=lineage, alias=alias, reason=reason)

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
        return tuple(name for name in self._names() if History(self.store, name).head().versions)

    def list(self, name: str | None = None) -> tuple[Row, ...]:
        """One row a version, newest version first; of one model or of all."""
        return tuple(row for state in self._states(name) for row in _rows(state, Query(yanked=True)))

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
        rows = tuple(row for state in states for row in _rows(state, query))
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
            _status(record),
            record.facts,
        )

    def log(self, name: str, last: int | None = None) -> tuple[Entry, ...]:
        """All entries of a model's log, or the `last` ones, oldest first, the chain verified."""
        if last is not None and last < 1:
            raise UsageError(f"last {last}: give a number of entries, 1 or more")
        self._known(History(self.store, names.model_name(name)).head())
        return History(self.store, name).entries(last)

    def resolve(self, ref: str) -> Resolved:
        """The version that a reference stands for now. Raises NotFoundError, suggesting near names."""
        state, version = self._locate(ref)
        return Resolved(state.model, version, state.versions[version].manifest)

    def pull(self, ref: str, into: str | os.PathLike[str] | None = None) -> Path:
        """A folder with the version's files, verified: in the cache (do not write there), or copied to `into`."""
        state, manifest = self._manifest(ref)
        told = caution(manifest.model, manifest.version, state.versions[manifest.version])
        if told:
            logger.warning("%s", told)
        return self.cache.snapshot(manifest) if into is None else self.cache.export(manifest, Path(into))

    def load(self, ref: str, threads: int = 1, max_length: int | None = None) -> TextClassifier:
        """A ready model. Its files are pulled where they are missing and verified in any case."""
        folder = self.pull(ref)
        from slm_registry.runtime import load_folder

        return load_folder(folder, threads=threads, max_length=max_length)

    def _names(self) -> tuple[str, ...]:
        """What stands where models stand and can be one: somebody's notes beside them are no concern."""
        return tuple(name for name in self.store.children("models") if names.is_model_name(name))

    def _publisher(self, name: str) -> Publisher:
        return Publisher(self.store, names.model_name(name), self._actor or _default_actor(), self._chunk_size)

    def _mover(self, name: str, alias: str, expected: Expected) -> Mover:
        names.alias_name(alias)
        if isinstance(expected, str):
            names.version_key(expected)
        self._known(History(self.store, names.model_name(name)).head())
        return Mover(self.store, name, self._actor or _default_actor())

    def _marker(self, name: str, version: str) -> Marker:
        names.version_key(version)
        self._known(History(self.store, names.model_name(name)).head())
        return Marker(self.store, name, self._actor or _default_actor())

    def _states(self, name: str | None) -> builtins.list[ModelState]:
        """The state of one model, or of all that have a version."""
        if name is not None:
            return [self._known(History(self.store, names.model_name(name)).state())]
        states = (History(self.store, model).state() for model in self._names())
        return [state for state in states if state.versions]

    def _known(self, state: ModelState) -> ModelState:
        """`state`, unless there is no such model. Raises NotFoundError then, suggesting near names."""
        if not state.versions:
            known = self._names()
            if not known:
                raise NotFoundError(f"{self.store.url} holds no model; publish one first, or check the address")
            raise NotFoundError(f"{self.store.url} has no model {state.model!r}; {near(state.model, known)}")
        return state

    def _locate(self, ref: str) -> tuple[ModelState, str]:
        """The version that a reference stands for, and a state that knows it. By alias it takes two requests."""
        parsed = names.parse_ref(ref)
        history = History(self.store, parsed.model)
        exact = parsed.version or parsed.digest or parsed.range
        state = self._known(history.state() if exact else history.head())
        return state, _select(parsed, state)

    def _manifest(self, ref: str) -> tuple[ModelState, Manifest]:
        state, version = self._locate(ref)
        return state, read_manifest(self.store, state, version)

    def _side(self, ref: str) -> Side:
        details = self.show(ref)
        return Side(**{key: getattr(details, key) for key in Side.__slots__})


def _rows(state: ModelState, query: Query) -> builtins.list[Row]:
    """The versions of a model that a query takes, newest first."""
    aliases: dict[str, builtins.list[str]] = {}
    for alias, held in sorted(state.aliases.items()):
        aliases.setdefault(held.version, []).append(alias)
    found = [(name, record) for name, record in state.versions.items() if query.takes(record)]
    found.sort(key=lambda item: names.version_key(item[0]), reverse=True)
    return [
        Row(
            state.model,
            name,
            tuple(aliases.get(name, ())),
            record.size,
            record.manifest,
            record.actor,
            record.at,
            _status(record),
            record.facts,
        )
        for name, record in found
    ]


def _status(record: Version) -> str:
    return "yanked" if record.yanked else "deprecated" if record.deprecated else ""


def _select(ref: names.Ref, state: ModelState) -> str:
    """The version that a reference means.

    A bare name means production or, where that alias is not set, the newest version; so does `latest`, which is the
    newest version unless somebody set an alias of that name.
    """
    if ref.version is not None:
        if ref.version in state.versions:
            return ref.version
        raise NotFoundError(f"model {ref.model!r} has no version {ref.version}; {near(ref.version, state.versions)}")
    if ref.digest is not None:
        for version, record in state.versions.items():
            if record.manifest == ref.digest:
                return version
        raise NotFoundError(f"model {ref.model!r} has no version with the digest {ref.digest}")
    if ref.range is not None:
        return _highest(ref.model, ref.range, state)
    alias = state.aliases.get(ref.alias or _BARE_ALIAS)
    if alias is not None:
        return alias.version
    if ref.alias not in (None, _NEWEST):
        raise NotFoundError(f"model {ref.model!r} has no alias {ref.alias!r}; {near(ref.alias or '', state.aliases)}")
    newest = state.newest()
    if newest is None:
        raise NotFoundError(f"model {ref.model!r}: every version is yanked; name one exactly to load it all the same")
    return newest


def _highest(model: str, text: str, state: ModelState) -> str:
    """The highest version in a range that is not yanked."""
    wanted = parse_range(text)
    keys = {name: names.version_key(name) for name, record in state.versions.items() if record.yanked is None}
    fitting = [name for name, key in keys.items() if wanted.allows(key)]
    if not fitting:
        newest = state.newest()
        raise NotFoundError(
            f"model {model!r} has no version {text} that is not yanked; "
            + (f"the newest is {newest}" if newest else "every version is yanked")
        )
    return max(fitting, key=keys.__getitem__)


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
