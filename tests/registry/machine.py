"""The registry against a dictionary: any sequence of what people do with it, races among it, leads to what a dict says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from slm_registry import UNSET, ConflictError, NotFoundError, Registry, RegistryError
from slm_registry.names import next_patch, version_key
from slm_registry.stores.base import Store

VERSIONS = st.sampled_from(["1.0.0", "1.0.1", "1.1.0", "2.0.0"])
ALIASES = st.sampled_from(["candidate", "production"])
CONTENTS = 3
CONTENT = st.integers(0, CONTENTS - 1)


def make_contents(folder: Path) -> list[Path]:
    """Small bundles that differ in one file and share the other."""
    made = []
    for number in range(CONTENTS):
        bundle = folder / str(number)
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text("{}")
        (bundle / "weights.safetensors").write_bytes(bytes([number]) * 300)
        made.append(bundle)
    return made


def at_once(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """The answers of calls that start at one moment; an error of the registry is an answer."""
    listed = list(calls)
    barrier = Barrier(len(listed))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except RegistryError as error:
            return error

    with ThreadPoolExecutor(len(listed)) as pool:
        return list(pool.map(run, listed))


class RegistryMachine(RuleBasedStateMachine):
    """One model in a fresh store, and the dictionaries that it should be the same as."""

    def __init__(self, store: Store, contents: list[Path], cache: Path) -> None:
        super().__init__()
        self.store, self.contents = store, contents
        self.registry = Registry(store, cache=cache, actor="machine")
        self.versions: dict[str, int] = {}
        self.aliases: dict[str, str] = {}
        self.entries = 0
        self.heads: list[bytes] = []

    def publish(self, version: str | None, content: int) -> Any:
        return self.registry.publish(self.contents[content], "m", version=version, lineage={})

    @rule(version=VERSIONS, content=CONTENT)
    def publish_a_version(self, version: str, content: int) -> None:
        (answer,) = at_once([lambda: self.publish(version, content)])
        held = self.versions.setdefault(version, content)
        if held != content:
            assert isinstance(answer, ConflictError)
            return
        assert answer.version == version
        self.entries += answer.created

    @rule(content=CONTENT)
    def publish_the_next_version(self, content: int) -> None:
        newest = max(self.versions, key=version_key, default=None)
        done = self.publish(None, content)
        if newest is not None and self.versions[newest] == content:
            assert (done.version, done.created) == (newest, False)
            return
        assert (done.version, done.created) == (next_patch(newest), True)
        self.versions[done.version] = content
        self.entries += 1

    @rule(alias=ALIASES, version=VERSIONS, expected=st.none() | VERSIONS | st.just(UNSET))
    def move_an_alias(self, alias: str, version: str, expected: Any) -> None:
        (answer,) = at_once([lambda: self.registry.alias("m", alias, version, expected=expected)])
        at = self.aliases.get(alias)
        if version not in self.versions:
            assert isinstance(answer, NotFoundError)
        elif expected is not UNSET and expected != at:
            assert isinstance(answer, ConflictError)
        else:
            assert answer is (at != version)
            self.aliases[alias] = version
            self.entries += at != version

    @rule(version=VERSIONS)
    def race_for_a_version(self, version: str) -> None:
        answers = at_once([lambda c=content: self.publish(version, c) for content in range(CONTENTS)])
        created = [number for number, answer in enumerate(answers) if getattr(answer, "created", False)]
        assert len(created) == (version not in self.versions)
        if created:
            self.versions[version] = created[0]
            self.entries += 1
        losers = [answer for number, answer in enumerate(answers) if number != self.versions[version]]
        assert all(isinstance(answer, ConflictError) for answer in losers)

    @rule(alias=ALIASES)
    def race_for_an_alias(self, alias: str) -> None:
        at = self.aliases.get(alias)
        wanted = [version for version in self.versions if version != at]
        if not wanted:
            return
        answers = at_once([lambda v=v: self.registry.alias("m", alias, v, expected=at) for v in wanted])
        assert [answer is True for answer in answers].count(True) == 1
        assert all(answer is True or isinstance(answer, ConflictError) for answer in answers)
        self.aliases[alias] = wanted[answers.index(True)]
        self.entries += 1

    @rule(which=st.integers(0, 20))
    def set_the_hint_back(self, which: int) -> None:
        """An older hint, or none: nobody may notice."""
        data = self.store.get("models/m/head.json", 1 << 20)
        if data is not None:
            self.heads.append(data)
        if self.heads and which < len(self.heads):
            self.store.put("models/m/head.json", self.heads[which])
        else:
            self.store.delete("models/m/head.json")

    @invariant()
    def the_registry_is_what_the_dictionaries_say(self) -> None:
        if not self.versions:
            assert self.registry.models() == ()
            return
        rows = self.registry.list("m")
        assert [row.version for row in rows] == sorted(self.versions, key=version_key, reverse=True)
        found = {alias: row.version for row in rows for alias in row.aliases}
        assert found == self.aliases
        assert len(self.registry.log("m")) == self.entries

    def teardown(self) -> None:
        """At the end each version holds the very bytes that its publisher gave."""
        for version, content in self.versions.items():
            pulled = self.registry.pull(f"m@{version}")
            for source in self.contents[content].iterdir():
                assert (pulled / source.name).read_bytes() == source.read_bytes()
