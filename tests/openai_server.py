"""An OpenAI-compatible endpoint on loopback whose behaviour a test sets, request by request."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-planted-0123456789abcdefABCDEF"
MODEL = "big-1"
#: What stands before a row's text in the tests' prompt.
PREFIX = "Say it back: "


class OpenAIServer:
    """Answers `PREFIX + text` with `text` in capitals. `script` says what the next requests meet instead.

    A script's entry is "ok", a status such as "500", "429 after 7" (Retry-After, in whatever form stands there), or one of
    hang, drip, reset, cut (half the body), garbage (no JSON), odd (JSON without choices), empty, length, filtered,
    no usage, other model, echo (the request's own key), surrogate, redirect. `behaviour` decides where the script is at its
    end. `asked` counts the requests for each text, `answered` those that got a whole answer.
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        self.script: list[str] = []
        self.behaviour: Callable[[str], str] = lambda text: "ok"
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.begun: list[float] = []
        self.usage = {"prompt_tokens": 10, "completion_tokens": 5}
        self.most, self.under_way, self.lock = 0, 0, threading.Lock()
        self.ended = threading.Event()


@contextmanager
def openai_server(port: int = 0) -> Iterator[OpenAIServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            chat = self.path == "/v1/chat/completions"
            prompt = body["messages"][0]["content"] if chat else body["prompt"]
            text = prompt.removeprefix(PREFIX)
            with web.lock:
                web.begun.append(time.monotonic())
                web.asked[text] += 1
                web.bodies.append(body)
                web.under_way += 1
                web.most = max(web.most, web.under_way)
                what = web.script.pop(0) if web.script else None
            try:
                self.meet(what or web.behaviour(text), text, chat, body)
            finally:
                with web.lock:
                    web.under_way -= 1

        def meet(self, what: str, text: str, chat: bool, body: dict[str, Any]) -> None:
            if self.headers["Authorization"] != f"Bearer {KEY}":
                refused = {"error": {"message": f"Incorrect key: {self.headers['Authorization']}"}}
                return self.send(401, json.dumps(refused).encode())
            if not self.path.startswith("/v1/"):
                return self.send(404, b"no such page")
            if body["model"] != MODEL:
                return self.send(404, json.dumps({"error": {"message": f"no model {body['model']}"}}).encode())
            if what[:3].isdigit():
                return self.refuse(what)
            if what in ("hang", "drip", "reset", "redirect", "cut", "garbage", "odd"):
                return self.fail(what, text, chat)
            self.send(200, self.reply(what, text, chat))
            with web.lock:
                web.answered[text] += 1

        def reply(self, what: str, text: str, chat: bool) -> bytes:
            said = {"empty": " \n", "echo": f"your key is {KEY}", "surrogate": "half \ud800"}.get(what, text.upper())
            finish = {"length": "length", "filtered": "content_filter"}.get(what, "stop")
            choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
            choice |= {"message": {"role": "assistant", "content": said}} if chat else {"text": said}
            model = "small-2" if what == "other model" else MODEL
            value = {"model": model, "choices": [choice], "usage": web.usage}
            if what == "no usage":
                del value["usage"]
            return json.dumps(value).encode()

        def refuse(self, what: str) -> None:
            status, _, after = what.partition(" after ")
            message = {"error": {"message": f"trouble {status} {KEY}"}}
            self.send(int(status), json.dumps(message).encode(), {"Retry-After": after} if after else {})

        def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def fail(self, what: str, text: str, chat: bool) -> None:
            whole = self.reply("ok", text, chat)
            if what in ("garbage", "odd"):
                return self.send(200, b"<html>oops" if what == "garbage" else b'{"error": "overloaded"}')
            if what == "redirect":
                return self.send(307, b"", {"Location": f"{web.url}/chat/completions"})
            self.close_connection = True
            if what == "hang":
                web.ended.wait(30)
            elif what == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            elif what == "cut":
                self.send(200, whole[: len(whole) // 2], {"Content-Length": str(len(whole))})
            elif what == "drip":
                self.send(200, b"", {"Content-Length": "100000"})
                while not web.ended.wait(0.02):
                    self.wfile.write(b" ")

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client left, or was killed
                super().handle()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", port), Handler)
    web = OpenAIServer(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
