"""The long tests, bounded by time: `python -m tests.registry.soak --minutes 20 --seed 1` prints a line a part.

Each part does the same as a test beside it, many times more often and with other seeds, and stops at its count or when
its share of the time is over. The first thing that does not hold ends it with a traceback and exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck
from hypothesis.stateful import run_state_machine_as_test
from slm_registry import ConflictError, Registry, open_store
from slm_registry.stores import s3
from slm_registry.stores.certify import certify

from tests.registry.fault_proxy import Plans, fault_proxy
from tests.registry.helpers import REPOSITORY
from tests.registry.machine import RegistryMachine, at_once, make_contents
from tests.registry.servers import ceph_gateway, ceph_missing, free_ports
from tests.registry.test_fault_proxy import files_of, until_done

RACES, FAULTED, EXAMPLES, CERTIFIED = 1_000, 1_000, 1_000, 200
COLLECTED = 10_000


@dataclass(frozen=True)
class Ground:
    """Where a part works: a folder of its own, addresses of S3 stores, and when it must end."""

    folder: Path
    servers: dict[str, str]
    seed: int
    end: float

    def rounds(self, most: int) -> Iterator[int]:
        """Numbers up to `most`, while there is time."""
        for number in range(most):
            if time.monotonic() > self.end:
                return
            yield number

    def bucket(self, server: str) -> str:
        """A fresh prefix on a server."""
        return f"s3://soak/{uuid.uuid4().hex}?endpoint_url={self.servers[server]}"


def races_on_a_folder(ground: Ground) -> str:
    """Eight processes publish one version with their contents, then move one alias, at one moment each."""
    contents = make_contents(ground.folder / "contents")
    driver = Path(__file__).with_name("race_driver.py")
    turns, done = 20, 0
    for batch in ground.rounds(RACES // turns):
        store = ground.folder / f"store{batch}"
        run = subprocess.run(
            [sys.executable, str(driver), str(store), str(turns), *(str(contents[number % 3]) for number in range(8))],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "registry"), "HOME": str(ground.folder)},
            check=False,
        )
        assert run.returncode == 0, run.stderr
        answers = [json.loads(line) for line in run.stdout.splitlines()]
        for turn in range(turns):
            for kind in ("version", "alias"):
                mine = [answer for answer in answers if (answer["turn"], answer["kind"]) == (turn, kind)]
                assert len(mine) == 8
                assert [answer.get("created", False) for answer in mine].count(True) == 1, mine
                assert {answer.get("error", "ConflictError") for answer in mine} == {"ConflictError"}, mine
            # 2.0.0 once, 1.0.0, 1.0.1, and one move.
            assert len(Registry(store / str(turn)).log("m")) == 4
        shutil.rmtree(store)
        done += turns
    return f"{done} of {RACES} races x 8 processes for a version, as many for an alias: one winner each, one linear log"


def commits_on_a_bucket(ground: Ground, server: str) -> str:
    """Eight threads create one key: the one write that everything else rests on."""
    store, done = open_store(ground.bucket(server)), 0
    for number in ground.rounds(RACES):
        key = f"models/m/log/{number + 1:012d}.json"
        won = at_once([partial(store.create, key, f"{writer}".encode()) for writer in range(8)])
        assert won.count(True) == 1, won
        assert store.get(key, 9) == f"{won.index(True)}".encode()
        done += 1
    return f"{done} of {RACES} races x 8 threads to create one key on {server}: one winner each"


def races_on_a_bucket(ground: Ground, server: str) -> str:
    """Eight threads publish one version, then move one alias."""
    contents = make_contents(ground.folder / "contents")
    done = 0
    for _ in ground.rounds(RACES):
        registry = Registry(ground.bucket(server), cache=ground.folder / "cache")
        publish = partial(registry.publish, name="m", version="1.0.0", lineage={})
        answers = at_once([partial(publish, contents[number % 3]) for number in range(8)])
        assert [getattr(answer, "created", False) for answer in answers].count(True) == 1
        registry.publish(contents[0], "m", version="1.0.1", lineage={"other": 1})
        move = partial(registry.alias, "m", "production", expected=None)
        answers = at_once([partial(move, f"1.0.{number % 2}") for number in range(8)])
        # Who wants what the winner did still expected no alias, and lost.
        assert [answer is True for answer in answers].count(True) == 1
        assert all(answer is True or isinstance(answer, ConflictError) for answer in answers)
        assert len(registry.log("m")) == 3
        done += 1
    return f"{done} of {RACES} races x 8 threads for a version and for an alias on {server}: one winner each, one linear log"


def faults(ground: Ground, server: str) -> str:
    """Publish, move and pull through the proxy, one request in five gone wrong."""
    contents = make_contents(ground.folder / "contents")
    met: Counter[str] = Counter()
    failed = done = 0
    with fault_proxy(ground.servers[server], 0.2) as proxy:
        for number in ground.rounds(FAULTED):
            url = ground.bucket(server)
            proxy.plan = plan = Plans(ground.seed * 100_000 + number, 0.2)
            registry = Registry(url.replace(ground.servers[server], proxy.url), cache=ground.folder / f"cache{number}")
            for content in contents[:2]:
                publish = partial(registry.publish, content, "m", lineage={}, alias="candidate")
                failed += until_done(publish)[1]
            pulled, again = until_done(partial(registry.pull, "m@candidate"))
            assert files_of(pulled) == files_of(contents[1])
            assert [entry.op for entry in Registry(url).log("m")] == ["publish", "alias"] * 2
            failed += again
            met.update(kind.partition(" ")[2] for kind in plan.done.elements())
            done += 1
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(met.items()))
    return f"{done} of {FAULTED} runs on {server}, {met.total()} faults ({kinds}), {failed} commands run again: all converged"


def machine(ground: Ground, server: str) -> str:
    """The registry and a dictionary side by side."""
    contents = make_contents(ground.folder / "contents")
    made = 0

    def fresh() -> RegistryMachine:
        nonlocal made
        made += 1
        url = str(ground.folder / f"store{made}") if server == "folder" else ground.bucket(server)
        return RegistryMachine(open_store(url), contents, ground.folder / f"cache{made}")

    for number in ground.rounds(EXAMPLES // 2):
        settings = hypothesis.settings(
            max_examples=2,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(hypothesis.seed(ground.seed * 1_000 + number)(fresh), settings=settings)
    return f"{made} sequences of up to 20 steps on {server}: as a dictionary"


def certified(ground: Ground, server: str) -> str:
    """certify passes each time."""
    done = 0
    for _ in ground.rounds(CERTIFIED):
        assert certify(open_store(ground.bucket(server))).refusals == ()
        done += 1
    return f"{done} of {CERTIFIED} certifications of {server} (4 races of 16 each): all passed"


def collected(ground: Ground) -> str:
    """Garbage collections against publishers: no reference leads nowhere."""
    driver, rounds, removed = Path(__file__).with_name("gc_driver.py"), 0, 0
    for number in ground.rounds(COLLECTED // 100):
        run = subprocess.run(
            [sys.executable, str(driver), str(ground.folder / f"gc{number}"), "100", f"{ground.seed}{number:04d}"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "registry")},
            check=False,
        )
        assert run.returncode == 0, run.stderr[-4000:]
        found = json.loads(run.stdout)
        assert "bad rounds" not in found, run.stderr[-4000:]
        rounds, removed = rounds + 100, removed + found["removed"]
    return f"{rounds} of {COLLECTED} rounds of collections against publishers, {removed} blobs removed: none missing"


def fuzz(ground: Ground) -> str:
    """The parsers under a fuzzer."""
    seconds = max(1, int(ground.end - time.monotonic()))
    driver = Path(__file__).with_name("fuzz_parsers.py")
    run = subprocess.run(
        [sys.executable, str(driver), str(seconds), str(ground.seed)],
        capture_output=True,
        text=True,
        cwd=ground.folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "registry")},
        check=False,
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    count = re.findall(r"Done (\d+) runs", run.stdout + run.stderr)[-1]
    tool = "hypothesis" if "with hypothesis" in run.stdout else "atheris"
    return f"{count} inputs by {tool} in {seconds} s: no crash, no hang"


Part = Callable[[Ground], str]


def parts(servers: dict[str, str]) -> dict[str, tuple[float, Part]]:
    """What is run: a name, its weight in the time, and the function."""
    found: dict[str, tuple[float, Part]] = {
        "races, folder": (2.5, races_on_a_folder),
        "state machine, folder": (1, partial(machine, server="folder")),
        "collections, folder": (2.5, collected),
    }
    for server in servers:
        found |= {
            f"commits, {server}": (1, partial(commits_on_a_bucket, server=server)),
            f"races, {server}": (1.5, partial(races_on_a_bucket, server=server)),
            f"faults, {server}": (1.5, partial(faults, server=server)),
            f"state machine, {server}": (1, partial(machine, server=server)),
            f"certify, {server}": (0.5, partial(certified, server=server)),
        }
    return {**found, "fuzzed parsers": (8, fuzz)}


@contextlib.contextmanager
def all_servers(folder: Path) -> Iterator[dict[str, str]]:
    """moto's server, and Ceph's gateway where it is installed."""
    from moto.server import ThreadedMotoServer

    (port,) = free_ports(1)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    moto.start()
    found = {"moto": f"http://127.0.0.1:{port}"}
    with contextlib.ExitStack() as stack:
        stack.callback(moto.stop)
        reason = ceph_missing()
        if reason:
            print(f"without Ceph: {reason}")
        else:
            found["ceph"] = stack.enter_context(ceph_gateway(folder))
        for address in found.values():
            s3._make_client(address, None).create_bucket(Bucket="soak")
        yield found


def prepare() -> None:
    """One client a server, which waits shortly and tries again at once; credentials that the servers take."""
    import logging
    from functools import cache

    import botocore.config
    import botocore.retries.standard

    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
    for name in ("werkzeug", "slm_registry"):
        logging.getLogger(name).setLevel(logging.ERROR)
    real: Any = botocore.config.Config
    botocore.config.Config = lambda **options: real(**{**options, "read_timeout": 5, "max_pool_connections": 50})
    botocore.retries.standard.ExponentialBackoff.delay_amount = lambda *_: 0
    s3._make_client = cache(s3._make_client)
    s3._pause = lambda attempt: None


def main() -> None:
    parser = argparse.ArgumentParser(description="The registry's long tests.")
    parser.add_argument("--minutes", type=float, default=20, help="all parts together (default 20, at most 20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="parts whose name holds this")
    options = parser.parse_args()
    prepare()
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as root,
        tempfile.TemporaryDirectory(prefix="ceph-") as ceph,
        all_servers(Path(ceph)) as servers,
    ):
        chosen = {name: part for name, part in parts(servers).items() if (options.only or "") in name}
        whole = sum(weight for weight, _ in chosen.values())
        for number, (name, (weight, part)) in enumerate(chosen.items()):
            folder = Path(root) / str(number)
            folder.mkdir()
            started = time.monotonic()
            share = min(options.minutes, 20) * 60 * weight / whole
            answer = part(Ground(folder, servers, options.seed, started + share))
            print(f"{name:24} {time.monotonic() - started:6.0f} s  {answer}", flush=True)


if __name__ == "__main__":
    main()
