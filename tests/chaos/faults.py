"""What happens around a build: its server is away, the disk is full, the clock is set, the bucket fails one call in five."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slm_registry import NoSpaceError, Registry

from tests.chaos.ground import HANDED, TINY, TOY, Ground, Kind, check, gone, wait
from tests.chaos.kills import END_SECONDS
from tests.chaos.servers import server
from tests.registry.fault_proxy import Plans, fault_proxy
from tests.registry.servers import KEY, SECRET, free_ports

AWAY_SECONDS = 60.0
DAY = 86_400
#: Share of calls to the bucket that go wrong, and how often a build may be run again for it.
RATE, TRIES = 0.2, 8
#: What goes wrong with them.
FAULTS = ("cut", "lost", "dropped", "late", "slow", "done-500", "500", "503")
#: Bytes of the disk that is filled.
DISK = 96 << 20


class Unavailable(Exception):
    """This machine lacks what the fault needs; the message says what."""


def server_away(ground: Ground, folder: Path, seed: int) -> str:
    """Killed in the middle of a build, and back at the same address a minute later: that build succeeds."""
    place = ground.copy(folder)
    (place.project / "behaviour" / "label.alpha").write_text(f"sleep {AWAY_SECONDS / 2}")
    with server(folder / "prefect") as running:
        build = place.start("build", place.kind.model, *HANDED, PREFECT_API_URL=running.api)
        time.sleep(ground.seconds * (0.3 + 0.1 * (seed % 4)))
        running.kill()
        time.sleep(AWAY_SECONDS)
        running.start()
        wait(place, lambda: build.poll() is not None, 3 * END_SECONDS, "the build goes on")
        assert build.returncode == 0, f"{folder}: the build ended with {build.returncode}\n{place.said()[-4000:]}"
    check(ground, place)
    return f"away for {AWAY_SECONDS:.0f} s: the build succeeded"


def full_disk(stage: str, when: str) -> Callable[[Ground, Path, int], str]:
    """The disk full as a stage begins (`running`), or as it has ended and DVC saves what it wrote (`saving`)."""

    def fault(ground: Ground, folder: Path, seed: int) -> str:
        with _disk(folder) as disk:
            place = ground.copy(disk / "place")
            build = place.start("build", place.kind.model, *HANDED)
            wait(place, lambda: place.running("-m", "pipelines", stage), 3 * END_SECONDS, f"no {stage}")
            if when == "saving":
                wait(place, lambda: not place.running("-m", "pipelines", stage), 3 * END_SECONDS, f"{stage} goes on")
            ballast = _fill(disk)
            wait(place, lambda: build.poll() is not None, 3 * END_SECONDS, "the build goes on")
            gone(place)
            code, said = build.returncode, place.said().strip().splitlines()[-1]
            ballast.unlink()
            assert code != 0, f"{folder}: the disk was not full enough\n{place.said()[-3000:]}"
            assert place.build() == 0, place.said()[-4000:]
            check(ground, place)
        return f"exit code {code} ({said[:160]}); with space again the next build finished it"

    return fault


def full_store(ground: Ground, folder: Path, seed: int) -> str:
    """The registry's disk full: nothing is published, and nothing is built again once it has space."""
    place = ground.copy(folder)
    store, aside = place.project / "store", folder / "aside"
    store.rename(aside)
    with _disk(store) as disk:
        shutil.copytree(aside, disk, dirs_exist_ok=True)
        ballast = _fill(disk)
        code = place.build()
        assert code == NoSpaceError.exit_code, f"exit code {code}\n{place.said()[-4000:]}"
        ballast.unlink()
        ran = place.said().count("> python tool.py")
        assert place.build() == 0, place.said()[-4000:]
        assert place.said().count("> python tool.py") == ran, "a stage was run again"
        check(ground, place)
    return f"exit code {code}; with space again the next build published and ran no stage"


def clock(step: int) -> Callable[[Ground, Path, int], str]:
    """The time of day set by so many seconds in the middle of a build, for all of its processes."""

    def fault(ground: Ground, folder: Path, seed: int) -> str:
        place = ground.copy(folder)
        offset = folder / "offset"
        offset.write_text("0\n")
        faked = {"LD_PRELOAD": str(_clock(folder)), "CLOCK_OFFSET": str(offset)}
        with server(folder / "prefect") as running:
            build = place.start("build", place.kind.model, *HANDED, PREFECT_API_URL=running.api, **faked)
            time.sleep(ground.seconds * (0.3 + 0.1 * (seed % 4)))
            offset.write_text(f"{step}\n")
            assert build.wait() == 0, place.said()[-4000:]
        check(ground, place)
        return "the build succeeded"

    return fault


def _clock(folder: Path) -> Path:
    """Compile the library that sets the time of day of a program. Raises Unavailable where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("no C compiler is installed")
    made = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True)
    return made


def failing_bucket(ground: Ground, folder: Path, seed: int) -> str:
    """DVC's remote and the registry in a bucket of which one call in five goes wrong."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    (port,) = free_ports(1)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    moto.start()
    try:
        return _on_a_bucket(ground, folder, seed, f"http://127.0.0.1:{port}")
    finally:
        moto.stop()


def _on_a_bucket(ground: Ground, folder: Path, seed: int, upstream: str) -> str:
    import boto3

    secrets = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(secrets)  # for the registry that is read here
    boto3.client("s3", endpoint_url=upstream).create_bucket(Bucket="chaos")
    place = ground.copy(folder, **secrets)
    direct = Registry(f"s3://chaos/store?endpoint_url={upstream}", cache=folder / "cache")
    bundle = Registry(place.project / "store").pull(f"{place.kind.model}@1.0.0")
    before = place.registry().show(f"{place.kind.model}@1.0.0")
    direct.publish(bundle, place.kind.model, version="1.0.0", lineage=before.lineage, alias="candidate")
    with fault_proxy(upstream, 1.0) as proxy:
        proxy.plan = plan = Plans(seed, RATE, faults=FAULTS)
        for setting in (("url", "s3://chaos/remote"), ("endpointurl", proxy.url)):
            place.dvc("remote", "modify", "storage", *setting)
        place.git("commit", "-qam", "bucket")
        store = f"s3://chaos/store?endpoint_url={proxy.url}"
        command = ("build", place.kind.model, "--publish", store, "--commit", "HEAD")
        for tries in range(1, TRIES + 1):  # noqa: B007
            if (code := place.start(*command).wait()) == 0:
                break
            assert code == 7, f"exit code {code}\n{place.said()[-4000:]}"
        assert code == 0, f"{TRIES} builds failed\n{place.said()[-4000:]}"
    check(ground, place, direct)
    return (
        f"{plan.done.total()} calls went wrong; {tries} {'build' if tries == 1 else 'builds'} until all was done, once"
    )


@contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    """A small file system in memory. Raises Unavailable where none can be mounted."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _fill(disk: Path) -> Path:
    """Write a file until nothing more fits."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * (1 << 16))
        except OSError:
            return ballast


#: What happens -> how, and in which project.
FAULTED: dict[str, tuple[Kind, Callable[[Ground, Path, int], str]]] = {
    "Prefect's server away": (TOY, server_away),
    "disk full while publishing": (TOY, full_store),
    "clock set a day forward": (TOY, clock(DAY)),
    "clock set a day back": (TOY, clock(-DAY)),
    "bucket that fails one call in five": (TOY, failing_bucket),
    "disk full while the teacher labels": (TINY, full_disk("label", "running")),
    "disk full while a student is trained": (TINY, full_disk("distill", "running")),
    "disk full while DVC saves a student": (TINY, full_disk("distill", "saving")),
}
