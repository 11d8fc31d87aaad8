"""A webhook's receiver whose behaviour a test sets, request by request."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from slm_registry import verify_webhook

SECRET = "a secret of the tests alone"


class Receiver:
    """Keeps each event that it verified; `script` says what each request meets: ok (the default), or a fault.

    Faults: a status such as 500 or 302; `hang`, `drip` (a header a byte at a time), `reset`, `close`; `keep` takes the
    event and then never answers.
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}/hook?team=a"
        self.script: list[str] = []
        self.tried: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.ended = threading.Event()

    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            what = receiver.script.pop(0) if receiver.script else "ok"
            receiver.tried.append(what)
            if what in ("ok", "keep"):
                assert self.path == "/hook?team=a"
                event = verify_webhook(SECRET, dict(self.headers.items()), body)
                assert self.headers["X-SLM-Registry-Delivery"] == event["digest"]
                receiver.events.append(event)
            if what == "ok":
                self.answer(204)
            elif what.isdigit():
                self.answer(int(what))
            else:
                self.fail(what)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Location", receiver.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def fail(self, what: str) -> None:
            self.close_connection = True
            if what in ("hang", "keep"):
                receiver.ended.wait(30)
            elif what == "drip":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not receiver.ended.is_set():
                    try:
                        self.wfile.write(b"x")
                    except OSError:
                        return
                    time.sleep(0.02)
            elif what == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    receiver = Receiver(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
