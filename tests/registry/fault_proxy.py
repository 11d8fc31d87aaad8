"""A proxy between an S3 client and a server, which does to each request what a plan says: faults with a seed."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

# cut: half of the body. lost: done, and no answer. dropped: not done, and no answer. late: done, answered too late.
# done-500: done, and answered as if not. The numbers: not done, and answered so.
FAULTS = ("cut", "lost", "dropped", "late", "slow", "done-500", "409", "412", "500", "503")
_CODES = {
    "409": "ConditionalRequestConflict",
    "412": "PreconditionFailed",
    "500": "InternalError",
    "503": "SlowDown",
}
_HOP = {"connection", "keep-alive", "transfer-encoding", "date", "server"}
Plan = Callable[[str, str], str | None]


class Plans:
    """What happens to each request: a fault with probability `rate`, at most `most` of them, drawn with a seed."""

    def __init__(self, seed: int, rate: float, most: int = 10**9, faults: tuple[str, ...] = FAULTS) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.rate, self.most, self.faults = rate, most, faults
        self.done: Counter[str] = Counter()

    def __call__(self, method: str, path: str) -> str | None:
        """The fault for a request, None where it goes through."""
        with self._lock:
            fault = self._random.choice(self.faults) if self._random.random() < self.rate else None
            if fault is None or self.done.total() >= self.most:
                return None
            self.done[f"{method} {fault}"] += 1
            return fault


class FaultProxy(ThreadingHTTPServer):
    """Forwards to `upstream`, but for what `plan` says."""

    daemon_threads = True

    def __init__(self, upstream: str, patience: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.patience = patience
        self.plan: Plan = lambda method, path: None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is what this is for."""


@contextlib.contextmanager
def fault_proxy(upstream: str, patience: float = 1.0) -> Iterator[FaultProxy]:
    """A running proxy; `patience` is how long its clients wait for an answer, in seconds."""
    proxy = FaultProxy(upstream, patience)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def handle_one_request(self) -> None:
        """Any method alike."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._act(self.server.plan(self.command, self.path), body)

    def _act(self, fault: str | None, body: bytes) -> None:
        if fault == "dropped":
            self._hang_up()
        elif fault in _CODES:
            self._refuse(int(fault), _CODES[fault])
        else:
            answer, data = self._forward(body)
            if fault == "lost":
                self._hang_up()
            elif fault == "done-500":
                self._refuse(500, "InternalError")
            else:
                if fault in ("slow", "late"):
                    time.sleep(self.server.patience * (1.5 if fault == "late" else 0.1))
                self._answer(answer, data, len(data) // 2 if fault == "cut" else len(data))

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                # The host stays the proxy's: the client signed it.
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer, answer.read()

    def _answer(self, answer: http.client.HTTPResponse, data: bytes, length: int) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP and name.lower() != "content-length":
                self.send_header(name, value)
        has_length = answer.getheader("Content-Length") is not None or data
        if has_length and answer.status not in (204, 304):
            self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(data)))
        self.end_headers()
        self.wfile.write(data[:length])
        if length < len(data):
            self._hang_up()

    def _refuse(self, status: int, code: str) -> None:
        data = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
