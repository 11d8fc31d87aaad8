"""`make bench-registry SIZE=1GB`: publish and pull of one bundle against the raw store, taking turns in one run.

The raw side is a plain parallel copy and a SHA-256 of every file: threads and kernel copies for a folder, boto3's own
transfer manager for a bucket. Both sides make a written folder durable, and neither does a pulled one. The buckets are on moto's
server and, where its packages are installed, on Ceph's RADOS gateway, a fresh one each round.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from slm_registry import Registry
from slm_registry.caching.eviction import parse_size

from tests.registry.servers import KEY, SECRET, ceph_gateway, ceph_missing

LANES = 8
PART = 16 << 20
# What a bundle of one large file, some middling and many small ones looks like, as shares of the whole.
LARGE = (0.5, 0.2, 0.2, 0.1)
SMALL_FILES, SMALL_BYTES = 20, 100_000
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """Median seconds of both sides, and the ratios of the rounds: ours divided by raw."""

    store: str
    way: str
    size: int
    raw_s: float
    ours_s: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)


class Raw(Protocol):
    """A store used plainly."""

    def publish(self, bundle: Path) -> None: ...

    def pull(self, into: Path) -> None: ...

    def clear(self) -> None: ...


class RawFolder:
    """Kernel copies in threads."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, bundle: Path) -> None:
        """Copy, sync and digest every file."""
        self._root.mkdir(parents=True)
        each(_digest, sorted(bundle.iterdir()))
        each(lambda path: _copy(path, self._root / path.name, durable=True), sorted(bundle.iterdir()))

    def pull(self, into: Path) -> None:
        """Copy and digest every file."""
        each(lambda path: _copy(path, into / path.name, durable=False), sorted(self._root.iterdir()))
        each(_digest, sorted(into.iterdir()))

    def clear(self) -> None:
        """Remove what was published."""
        shutil.rmtree(self._root)


class RawBucket:
    """boto3's transfer manager, with as many threads as our side."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        from boto3.s3.transfer import TransferConfig

        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=LANES)
        self._names: list[str] = []

    def publish(self, bundle: Path) -> None:
        """Digest and upload every file."""
        self._names = sorted(path.name for path in bundle.iterdir())
        each(_digest, sorted(bundle.iterdir()))

        def upload(name: str) -> None:
            self._client.upload_file(str(bundle / name), self._bucket, self._prefix + name, Config=self._config)

        each(upload, self._names)

    def pull(self, into: Path) -> None:
        """Download and digest every file."""

        def download(name: str) -> None:
            self._client.download_file(self._bucket, self._prefix + name, str(into / name), Config=self._config)

        each(download, self._names)
        each(_digest, sorted(into.iterdir()))

    def clear(self) -> None:
        """Remove what was published."""
        remove_prefix(self._client, self._bucket, self._prefix)


def each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Every item, in as many threads as our side uses."""
    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(work, items))


def _copy(source: Path, target: Path, *, durable: bool) -> None:
    shutil.copyfile(source, target)
    if durable:
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _digest(path: Path) -> None:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
    hasher.hexdigest()


def make_bundle(folder: Path, size: int) -> Path:
    """A bundle of `size` random bytes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for index, share in enumerate(LARGE):
        _random(folder / f"weights-{index}.safetensors", int(size * share))
    for index in range(SMALL_FILES):
        _random(folder / f"notes-{index:02d}.md", SMALL_BYTES)
    return folder


def _random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        # Not by chance the beginning of a pickle or an archive.
        file.write(bytes(16))
        for start in range(16, size, _BLOCK):
            file.write(os.urandom(min(_BLOCK, size - start)))


def timed(work: Callable[[], object]) -> float:
    """Seconds that it took, begun with nothing left to be written by what went before."""
    os.sync()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_round(bundle: Path, work: Path, raw: Raw, url: str, *, raw_first: bool) -> dict[tuple[str, str], float]:
    """Seconds by (way, side). Who goes first changes from round to round."""
    registry = Registry(url, cache=work / "cache", actor="bench")
    (work / "pulled").mkdir()
    sides: dict[str, dict[str, Callable[[], object]]] = {
        "publish": {
            "raw": lambda: raw.publish(bundle),
            "ours": lambda: registry.publish(bundle, "m", lineage={}),
        },
        "pull": {"raw": lambda: raw.pull(work / "pulled"), "ours": lambda: registry.pull("m")},
    }
    times = {}
    for way, both in sides.items():
        for side in ("raw", "ours") if raw_first else ("ours", "raw"):
            times[way, side] = timed(both[side])
            if way == "pull":
                # At once: the other side then has the room, and the work folder may be in memory.
                shutil.rmtree(work / ("pulled" if side == "raw" else "cache"))
    registry.cache.close()
    return times


def measure(name: str, rounds: list[dict[tuple[str, str], float]], size: int) -> list[Row]:
    """A row a way."""
    rows = []
    for way in ("publish", "pull"):
        raw = [times[way, "raw"] for times in rounds]
        ours = [times[way, "ours"] for times in rounds]
        ratios = tuple(mine / plain for mine, plain in zip(ours, raw, strict=True))
        rows.append(Row(name, way, size, statistics.median(raw), statistics.median(ours), ratios))
    return rows


def bench_folder(bundle: Path, work: Path, size: int, rounds: int) -> list[Row]:
    """The folder store, in `work`."""
    found = []
    for number in range(rounds):
        raw = RawFolder(work / "raw")
        found.append(one_round(bundle, work, raw, str(work / "store"), raw_first=number % 2 == 0))
        raw.clear()
        shutil.rmtree(work / "store")
    return measure("folder", found, size)


def bench_bucket(name: str, url: str, bundle: Path, work: Path, size: int, rounds: int) -> list[Row]:
    """A bucket that is there already, below a prefix of this run's own."""
    import boto3

    parts = urlsplit(url)
    endpoint = parse_qs(parts.query).get("endpoint_url", [None])[0]
    client = boto3.client("s3", endpoint_url=endpoint)
    found = []
    for number in range(rounds):
        prefix = f"{parts.path.strip('/')}/bench-{uuid.uuid4().hex[:8]}".lstrip("/")
        raw = RawBucket(client, parts.netloc, f"{prefix}/raw/")
        ours = f"s3://{parts.netloc}/{prefix}/ours" + (f"?{parts.query}" if parts.query else "")
        found.append(one_round(bundle, work, raw, ours, raw_first=number % 2 == 0))
        remove_prefix(client, parts.netloc, prefix + "/")
    return measure(name, found, size)


def bench_ceph(bundle: Path, work: Path, size: int, rounds: int) -> list[Row]:
    """Ceph's gateway, a new one each round: a removed object keeps its memory for hours."""
    import boto3

    os.environ |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    found = []
    for number in range(rounds):
        with (
            tempfile.TemporaryDirectory(prefix="ceph-") as folder,
            ceph_gateway(Path(folder), 3 * size + (1 << 30)) as url,
        ):
            client = boto3.client("s3", endpoint_url=url)
            client.create_bucket(Bucket="bench")
            raw = RawBucket(client, "bench", "raw/")
            ours = f"s3://bench/ours?endpoint_url={url}"
            found.append(one_round(bundle, work, raw, ours, raw_first=number % 2 == 0))
    return measure("Ceph over HTTP", found, size)


def remove_prefix(client: Any, bucket: str, prefix: str) -> None:
    """Every object below a prefix."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])


@contextlib.contextmanager
def moto_bucket() -> Iterator[str]:
    """A bucket on moto's server, in a process of its own: in this one it would share the interpreter's lock."""
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(port)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bench")
        yield f"s3://bench?endpoint_url={endpoint}"
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on."""
    found = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def table(rows: Sequence[Row], settings: str, notes: Sequence[str]) -> str:
    """The rows as Markdown, and what they were measured on."""
    lines = [
        "# The registry against its raw store",
        "",
        f"Written by `make bench-registry {settings}`. Raw: a plain parallel copy and a SHA-256 of every file. Ratio: ours / raw, the "
        "median of the rounds, in which both sides took turns, and the least and the most.",
        "",
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}. "
        + " ".join(notes),
        "",
        "| store | way | MB | rounds | raw, s | ours, s | ratio | least | most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.store} | {row.way} | {row.size / 1e6:.0f} | {len(row.ratios)} | {row.raw_s:.2f} | {row.ours_s:.2f} | {row.ratio:.2f} | "
        f"{min(row.ratios):.2f} | {max(row.ratios):.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(prog="benchmarks.registry", description=__doc__)
    parser.add_argument("--size", default="1GB")
    parser.add_argument(
        "--rounds", type=int, default=5, help="for each bucket; the folder, which is quick, has twice as many"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/bench-registry"),
        help="where all files are; four times the size is needed",
    )
    parser.add_argument("--table", type=Path)
    parser.add_argument("--s3", metavar="URL", help="s3://bucket/prefix?endpoint_url=... to measure instead of moto")
    parser.add_argument("--only", choices=["folder", "s3"], help="leave the other stores out")
    options = parser.parse_args(argv)
    size = parse_size(options.size)
    work = options.work / uuid.uuid4().hex
    rows: list[Row] = []
    load = os.getloadavg()[0]
    try:
        bundle = make_bundle(work / "bundle", size)
        if options.only != "s3":
            rows += bench_folder(bundle, work, size, 2 * options.rounds)
        if options.only != "folder":
            place = contextlib.nullcontext(options.s3) if options.s3 else moto_bucket()
            with place as url:
                name = "S3 endpoint" if options.s3 else "moto over HTTP"
                rows += bench_bucket(name, url, bundle, work, size, options.rounds)
            if not options.s3 and ceph_missing() is None:
                rows += bench_ceph(bundle, work, size, options.rounds)
        notes = [f"Bundle, folder store and cache on {file_system(work)}.", f"Load average at the start: {load:.2f}."]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    text = table(rows, f"SIZE={options.size} ROUNDS={options.rounds}", notes)
    print(text)
    if options.table:
        options.table.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
