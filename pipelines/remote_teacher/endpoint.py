"""One request to an OpenAI-compatible endpoint: a prompt in, a checked reply out, or what went wrong and whether it may pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.config import ApiTeacher
from pipelines.errors import ModelError
from pipelines.remote_teacher.key import Key
from pipelines.remote_teacher.patience import Clock, Failure, seconds_of
from pipelines.remote_teacher.questions import Question
from pipelines.remote_teacher.replies import NotAReply, Reply, error_message, parse_reply

if TYPE_CHECKING:
    import httpx

PATHS = {"chat": "/chat/completions", "completions": "/completions"}

#: Statuses below 500 that may pass.
BUSY = frozenset({408, 409, 425, 429})

#: No answer is longer; an endpoint that sends more is broken.
LARGEST_REPLY = 16 << 20


class Endpoint:
    """A client of one endpoint, for many threads. Close it, or use it as a context manager."""

    def __init__(self, teacher: ApiTeacher, key: Key, clock: Clock) -> None:
        import httpx

        self._teacher, self._key, self._clock = teacher, key, clock
        self._url = teacher.url + PATHS[teacher.endpoint]
        limits = httpx.Limits(max_connections=teacher.parallel, max_keepalive_connections=teacher.parallel)
        # A redirect is not followed: the key is meant for this host.
        self._client = httpx.Client(auth=key.sign, timeout=teacher.timeout_seconds, limits=limits)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, question: Question) -> Reply:
        """One try. Raises Failure where another may succeed, ModelError where none will."""
        status, headers, body = self._exchange(self._body(question))
        if status in BUSY or status >= 500:
            said = error_message(body, self._key.hidden)
            raise Failure(
                f"{self._url}: answered {status}{said}", after=seconds_of(headers.get("Retry-After")), charged=False
            )
        if status != 200:
            raise self._refusal(status, body, question)
        try:
            reply = parse_reply(body, self._key.hidden)
        except NotAReply as error:
            raise Failure(f"{self._url}: sent a reply {error}", charged=True) from error
        check_served(self._teacher, reply.served)
        if self._key.is_in(reply.text):
            raise ModelError(
                f"{self._url}: its answer to training row {question.row} repeats the key in "
                f"${self._teacher.key_variable}, and is not stored; use another key, or none where none is needed"
            )
        return reply

    def _body(self, question: Question) -> dict[str, Any]:
        sampling = self._teacher.sampling
        asked: dict[str, Any] = (
            {"messages": [{"role": "user", "content": question.prompt}]}
            if self._teacher.endpoint == "chat"
            else {"prompt": question.prompt}
        )
        return asked | {
            "model": self._teacher.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "stream": False,
        }

    def _exchange(self, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and whole body; Failure where the network, the time or the size gets in the way."""
        import httpx

        end, parts, size = self._clock.now() + self._teacher.timeout_seconds, [], 0
        try:
            with self._client.stream("POST", self._url, json=body) as answer:
                for part in answer.iter_bytes():
                    parts.append(part)
                    size += len(part)
                    # httpx times each piece; an endpoint that drips would never time out.
                    if self._clock.now() > end or size > LARGEST_REPLY:
                        raise Failure(f"{self._url}: too slow or too long, {size} bytes came", charged=True)
                return answer.status_code, answer.headers, b"".join(parts)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Failure(f"{self._url}: cannot be reached ({type(error).__name__})") from error
        except httpx.TimeoutException as error:
            seconds = self._teacher.timeout_seconds
            raise Failure(f"{self._url}: no answer in {seconds:g} s (teach.timeout_seconds)", charged=True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Failure(f"{self._url}: broke off ({type(error).__name__})", charged=True) from error

    def _refusal(self, status: int, body: bytes, question: Question) -> ModelError:
        """The error of an answer that will not change. A body is not repeated where it may speak of the key."""
        teacher, said = self._teacher, error_message(body, self._key.hidden)
        if status in (401, 403):
            key = "a key; name its variable in teach.key_variable"
            if teacher.key_variable is not None:
                key = f"the key in ${teacher.key_variable}; export the right one, or one that may use {teacher.model!r}"
            return ModelError(f"{self._url}: answered {status}: it refuses {key}")
        if status == 404:
            return ModelError(
                f"{self._url}: answered 404{said}; check teach.url and teach.endpoint, and whether it serves "
                f"teach.model {teacher.model!r}"
            )
        if 300 <= status < 400:
            return ModelError(f"{self._url}: answered {status}, a redirect, which is not followed; correct teach.url")
        return ModelError(
            f"{self._url}: answered {status} to training row {question.row}{said}; check teach.sampling, or remove "
            "the row where it is too long for the model"
        )


def check_served(teacher: ApiTeacher, served: str | None) -> None:
    """Raise ModelError where another model answered than the recipe allows."""
    if teacher.served_as is not None and served != teacher.served_as:
        raise ModelError(
            f"{teacher.url}: an answer is by model {served!r}, the recipe says teach.served_as {teacher.served_as!r}; "
            "correct the recipe or ask another endpoint"
        )
