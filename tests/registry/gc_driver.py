"""Collections and publishers at one store, their calls interleaved at random: `python gc_driver.py ROOT ROUNDS SEED`.

Each actor runs in a thread and waits for its turn before each call of the store; whose turn it is, who is killed and
where, is drawn from the seed, so that a round is the same whenever it is run again. A listing comes in pages of two, with
turns between them. After each round every reference of every log is followed. Prints what happened, in numbers, as JSON.
A fourth argument takes a part of the protection away, to show what this would find without it: `no-wait` (publishers
do not look for sweeps), `no-lease` (collections do not look for leases), `log-first` (they read the log before the leases).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slm_registry import Registry, RegistryError
from slm_registry.bundles.manifest import MAX_CONFIG, MAX_MANIFEST, parse_manifest
from slm_registry.changes import leases
from slm_registry.log.history import History
from slm_registry.plumbing.hashing import digest_of
from slm_registry.stores.folder import FolderStore
from slm_registry.stores.items import Item
from slm_registry.transfer import blobs
from slm_registry.transfer.blobs import blob_key, intact, read_json_blob
from slm_registry.upkeep import gc
from slm_registry.upkeep.references import live_blobs

CONTENT = {"config.json": b"{}", "a.md": b"a", "b.md": b"b", "c.md": b"c", "d.md": b"d"}
BUNDLES = (("config.json", "a.md", "b.md"), ("config.json", "b.md", "c.md"), ("config.json", "d.md"))


class Killed(BaseException):
    """As kill -9: nothing that the actor does afterwards reaches the store."""


class Actor:
    """A thread that goes on when it is told to; dies at step `dies`, if there is one."""

    def __init__(self, work: Callable[[SteppedStore], Any], inner: FolderStore, back: threading.Semaphore, dies: int):
        self.go, self.back, self.dies = threading.Semaphore(0), back, dies
        self.steps, self.ended, self.outcome = 0, False, "crashed"
        self.thread = threading.Thread(target=self._run, args=(work, SteppedStore(inner, self)))
        self.thread.start()

    def _run(self, work: Callable[[SteppedStore], Any], store: SteppedStore) -> None:
        self.go.acquire()
        try:
            work(store)
            self.outcome = "done"
        except Killed:
            self.outcome = "killed"
        except RegistryError as error:
            self.outcome = type(error).__name__
        finally:
            self.ended = True
            self.back.release()

    def step(self) -> None:
        self.back.release()
        self.go.acquire()
        self.steps += 1
        if self.dies and self.steps >= self.dies:
            raise Killed


class SteppedStore:
    """A store each call of which is a step of its actor."""

    def __init__(self, inner: FolderStore, actor: Actor) -> None:
        self.inner, self.actor = inner, actor
        self.url, self.identity = inner.url, inner.identity

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.actor.step()
            return getattr(self.inner, name)(*arguments, **options)

        return call

    def listing(self, prefix: str) -> Iterator[Item]:
        last = ""
        while True:
            self.actor.step()
            page = sorted((i for i in self.inner.listing(prefix) if i.key > last), key=lambda item: item.key)[:2]
            if not page:
                return
            yield from page
            last = page[-1].key


def run_turns(rng: random.Random, actors: list[Actor], back: threading.Semaphore) -> None:
    while alive := [actor for actor in actors if not actor.ended]:
        # In bursts, so that one actor may come to its end between two steps of another.
        actor = rng.choice(alive)
        for _ in range(rng.choice((1, 1, 2, 5, 20, 60))):
            if not actor.ended:
                actor.go.release()
                back.acquire()
    for actor in actors:
        actor.thread.join()


def prepare(rng: random.Random, store: FolderStore, bundles: Path) -> None:
    """What was there before: a version, the leavings of publishes that died, and a mark on some of these."""
    if rng.random() < 0.5:
        Registry(store, actor="before").publish(bundles / "0", "m", lineage={})
    left = [data for data in CONTENT.values() if rng.random() < 0.8]
    for data in left:
        store.put(blob_key(digest_of(data)), data)
    gc._mark(store, [digest_of(data) for data in CONTENT.values() if rng.random() < 0.9])


def one_round(rng: random.Random, root: Path, bundles: Path) -> Counter[str]:
    store = FolderStore(root)
    prepare(rng, store, bundles)
    back = threading.Semaphore(0)
    works: list[Callable[[SteppedStore], Any]] = [collector] * rng.choice((1, 1, 2))
    works += [publisher(bundles / str(rng.randrange(3)), rng.choice("mn"), n) for n in range(rng.choice((1, 2, 2)))]
    actors = [Actor(work, store, back, rng.randrange(1, 90) if rng.random() < 0.15 else 0) for work in works]
    run_turns(rng, actors, back)
    counts = Counter(actor.outcome for actor in actors)
    counts["dangling"] = dangling(store)
    counts["removed"] = sum(len(entry["blobs"]) for entry in gc.removals(store))
    if counts["dangling"]:
        return counts
    settle(root)
    for _ in range(2):
        gc.collect(store, "after", grace=0, delete=True)
    counts["dangling"] += dangling(store)
    counts["uncollected"] = {f"sha256:{name}" for name in store.children("blobs/sha256")} != live_blobs(store)
    return counts


def collector(store: Any) -> None:
    gc.collect(store, "collector", grace=0, delete=True)


def publisher(bundle: Path, model: str, number: int) -> Callable[[Any], None]:
    def publish(store: Any) -> None:
        Registry(store, actor=f"p{number}").publish(bundle, model, lineage={})

    return publish


def settle(root: Path) -> None:
    """What the dead have left runs out."""
    for path in [*(root / "leases").glob("*"), *(root / "gc" / "sweeps").glob("*")]:
        os.utime(path, (0, 0))


def dangling(store: FolderStore) -> int:
    """References of the logs that lead nowhere."""
    count = 0
    for model in store.children("models"):
        for entry in History(store, model).entries():
            version, digest = entry.details["version"], entry.details["manifest"]
            try:
                manifest = parse_manifest(read_json_blob(store, digest, MAX_MANIFEST, "manifest"), model, version)
                read_json_blob(store, manifest.config, MAX_CONFIG, "config")
            except RegistryError:
                count += 1
                continue
            count += sum(not intact(store, file.digest, file.size) for file in manifest.files)
    return count


def sabotage(how: str) -> None:
    if how == "no-wait":
        leases.Lease._outlast_sweeps = lambda self: None  # type: ignore[method-assign]
    elif how == "no-lease":
        gc.leases.read_leases = lambda store, now: leases.Leases(frozenset(), ())
    elif how == "log-first":
        sound = leases.read_leases

        def late(store: Any, now: float) -> leases.Leases:
            found = live_blobs(store)
            gc.live_blobs = lambda *arguments: found
            return sound(store, now)

        gc.leases.read_leases = late
    elif how:
        raise SystemExit(f"what is {how}?")


def main(root: Path, rounds: int, seed: int, how: str = "") -> None:
    # The order of calls is what counts here, not what survives a power cut.
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    leases._pause = lambda: None
    # An actor is one thread.
    blobs.each = lambda work, items, lanes=1: [work(item) for item in items]
    os.environ["SLM_REGISTRY_CACHE"] = str(root / "cache")
    for number, paths in enumerate(BUNDLES):
        (root / "bundles" / str(number)).mkdir(parents=True)
        for path in paths:
            (root / "bundles" / str(number) / path).write_bytes(CONTENT[path])
    sabotage(how)
    total: Counter[str] = Counter(rounds=rounds)
    for number in range(rounds):
        found = one_round(random.Random(f"{seed} {number}"), root / "store", root / "bundles")
        if found["dangling"] or found["uncollected"]:
            total["bad rounds"] += 1
            print(f"round {number} of seed {seed}: {dict(found)}", file=sys.stderr)
        if found["crashed"]:
            raise SystemExit(f"round {number} of seed {seed}: an actor ended in an error that is not the registry's")
        total += found
        shutil.rmtree(root / "store")
        shutil.rmtree(root / "cache", ignore_errors=True)
    print(json.dumps(total))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
