"""The server's edge: bodies within bounds, in time, and every request counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from slm_registry.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Edge:
    """An ASGI application around another. A body over `body` bytes is answered 413, one slower than `seconds` 408."""

    def __init__(self, app: App, *, paths: frozenset[str], metrics: Metrics, body: int, seconds: float) -> None:
        self._app, self._paths, self._metrics = app, paths, metrics
        self._body, self._seconds = body, seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, end = 500, self._metrics.begin()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._bounded(scope, receive, sent)
        finally:
            # Only paths that exist: a stranger's would fill the memory.
            end(scope["path"] if scope["path"] in self._paths else "other", status)

    async def _bounded(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
        except TimeoutError:
            await refuse(send, 408, f"the body did not come within {self._seconds:g} s; send it faster")
            return
        if body is None:
            await refuse(send, 413, f"the body is longer than {self._body} bytes; send fewer texts at a time")
            return
        rest = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(rest, None) or await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body; None where it is too long."""
        parts, size = [], 0
        while True:
            message = await receive()
            part = message.get("body", b"")
            size += len(part)
            if size > self._body:
                return None
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)


def error_body(kind: str, message: str) -> dict[str, Any]:
    """What every refusal looks like."""
    return {"error": {"type": kind, "message": message}}


async def refuse(send: Send, status: int, message: str) -> None:
    """Answer with an error, and end the connection: what is left of the body is not read."""
    data = json.dumps(error_body("UsageError", message)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    start = {"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]}
    await send(start)
    await send({"type": "http.response.body", "body": data})
