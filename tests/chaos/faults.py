"""What happens around a build: its server is away, the disk is full, the clock is set, the bucket fails one call in five."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slm_registry import Registry

from tests.chaos.ground import HANDED, MODEL, Ground, Place, check, gone, wait
from tests.chaos.kills import END_SECONDS
from tests.chaos.servers import server
from tests.registry.fault_proxy import Plans, fault_proxy
from tests.registry.servers import KEY, SECRET, free_ports

AWAY_SECONDS = 60.0
DAY = 86_400
#: The library that gives a process another time of day, where its package (libfaketime) is installed.
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
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
    with server(folder / "prefect") as running:
        build = place.start("build", MODEL, *HANDED, PREFECT_API_URL=running.api)
        time.sleep(ground.seconds * (0.3 + 0.1 * (seed % 4)))
        running.kill()
        time.sleep(AWAY_SECONDS)
        running.start()
        wait(place, lambda: build.poll() is not None, 3 * END_SECONDS, "the build goes on")
        assert build.returncode == 0, f"{folder}: the build ended with {build.returncode}\n{place.said()[-4000:]}"
    check(ground, place)
    return f"away for {AWAY_SECONDS:.0f} s: the build succeeded"


def full_disk(stage: str, when: str) -> Callable[[Ground, Path, int], str]:
    """The disk full as a stage begins (`training`), or as it has ended and DVC saves what it wrote (`saving`)."""

    def fault(ground: Ground, folder: Path, seed: int) -> str:
        with _disk(folder) as disk:
            place = ground.copy(disk / "place")
            build = place.start("build", MODEL, *HANDED)
            wait(place, lambda: _runs(place, stage), 3 * END_SECONDS, f"no {stage}")
            if when == "saving":
                wait(place, lambda: not _runs(place, stage), 3 * END_SECONDS, f"{stage} goes on")
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
    with _disk(folder.with_name(f"{folder.name}-store")) as disk:
        (place.project / "store").rename(disk / "store")
        (place.project / "store").symlink_to(disk / "store")
        ballast = _fill(disk)
        code = place.build()
        assert code == 6, f"exit code {code}\n{place.said()[-4000:]}"
        ballast.unlink()
        ran = place.said().count("> python -m pipelines")
        assert place.build() == 0, place.said()[-4000:]
        assert place.said().count("> python -m pipelines") == ran, "a stage was run again"
        check(ground, place)
    return "exit code 6; with space again the next build published and ran no stage"


def clock(step: int) -> Callable[[Ground, Path, int], str]:
    """The time of day set by so many seconds in the middle of a build, for all of its processes."""

    def fault(ground: Ground, folder: Path, seed: int) -> str:
        if not FAKETIME.exists():
            raise Unavailable("libfaketime is not installed")
        place = ground.copy(folder)
        offset = folder / "offset"
        offset.write_text("+0\n")
        faked = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with server(folder / "prefect") as running:
            build = place.start("build", MODEL, *HANDED, PREFECT_API_URL=running.api, **faked)
            time.sleep(ground.seconds * (0.3 + 0.1 * (seed % 4)))
            offset.write_text(f"{step:+d}\n")
            assert build.wait() == 0, place.said()[-4000:]
        check(ground, place)
        return "the build succeeded"

    return fault


def failing_bucket(ground: Ground, folder: Path, seed: int) -> str:
    """DVC's remote and the registry in a bucket of which one call in five goes wrong."""
    from moto.server import ThreadedMotoServer

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
    bundle = Registry(place.project / "store").pull(f"{MODEL}@1.0.0")
    before = place.registry().show(f"{MODEL}@1.0.0")
    direct.publish(bundle, MODEL, version="1.0.0", lineage=before.lineage, alias="candidate")
    with fault_proxy(upstream, 1.0) as proxy:
        proxy.plan = plan = Plans(seed, RATE, faults=FAULTS)
        for setting in (("url", "s3://chaos/remote"), ("endpointurl", proxy.url)):
            _dvc(place, "remote", "modify", "storage", *setting)
        place.git("commit", "-qam", "bucket")
        store = f"s3://chaos/store?endpoint_url={proxy.url}"
        command = ("build", MODEL, "--publish", store, "--commit", "HEAD")
        for tries in range(1, TRIES + 1):
            if (code := place.start(*command).wait()) == 0:
                break
            assert code == 7, f"exit code {code}\n{place.said()[-4000:]}"
        assert code == 0, f"{TRIES} builds failed\n{place.said()[-4000:]}"
    check(ground, place, direct)
    return (
        f"{plan.done.total()} calls went wrong; {tries} {'build' if tries == 1 else 'builds'} until all was done, once"
    )


def _dvc(place: Place, *arguments: str) -> None:
    command = ["python", "-m", "dvc", *arguments]
    subprocess.run(command, cwd=place.project, env=place.variables(), check=True, capture_output=True)


def _runs(place: Place, stage: str) -> bool:
    return any(one.cmdline()[1:4] == ["-m", "pipelines", stage] for one in place.processes())


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


#: What happens -> how.
FAULTED: dict[str, Callable[[Ground, Path, int], str]] = {
    "Prefect's server away": server_away,
    "disk full while a student is trained": full_disk("distill", "training"),
    "disk full while the teacher labels": full_disk("label", "training"),
    "disk full while DVC saves": full_disk("distill", "saving"),
    "disk full while publishing": full_store,
    "clock set a day forward": clock(DAY),
    "clock set a day back": clock(-DAY),
    "bucket that fails one call in five": failing_bucket,
}
