"""POST /generate: a text at once, or piece by piece as server-sent events."""

# Without postponed annotations: FastAPI reads those of functions and classes that are made in `add_generate`.

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from slm_registry.errors import RegistryError
from slm_registry.finding.records import Resolved
from slm_registry.runtime.decoding import Generation
from slm_registry.serving.httpedge import error_body
from slm_registry.serving.httptypes import GenerateResponse
from slm_registry.serving.livemodel import LiveModel
from slm_registry.serving.metrics import Metrics

if TYPE_CHECKING:
    from fastapi import FastAPI

_STOPS, _STOP_CHARACTERS = 16, 200
#: What a request that does not say gets, where the server allows so many.
_NEW_TOKENS = 128


def add_generate(
    app: "FastAPI",
    live: LiveModel,
    metrics: Metrics,
    refusals: dict[int | str, dict[str, Any]],
    *,
    characters: int,
    new_tokens: int,
) -> None:
    """Answer POST /generate with prompts of so many `characters`, and at most `new_tokens` written."""
    from fastapi.responses import StreamingResponse
    from pydantic import BaseModel, ConfigDict, Field, model_validator
    from pydantic_core import PydanticCustomError

    Stop = Annotated[str, Field(min_length=1, max_length=_STOP_CHARACTERS)]

    class GenerateRequest(BaseModel):
        """A prompt, and how to go on."""

        model_config = ConfigDict(extra="forbid", strict=True)
        prompt: Annotated[str, Field(max_length=characters)] = Field(examples=["Once upon a time"])
        max_new_tokens: int = Field(default=min(_NEW_TOKENS, new_tokens), ge=1, le=new_tokens)
        temperature: float = 0.0
        top_k: int | None = None
        top_p: float | None = None
        repetition_penalty: float = 1.0
        seed: int | None = None
        stop: Annotated[list[Stop], Field(max_length=_STOPS)] = Field(default_factory=list)
        truncate: bool = False
        stream: bool = False

        @model_validator(mode="before")
        @classmethod
        def only_fields(cls, value: Any) -> Any:
            # One error: an error for each of many unknown keys would hold up every other request.
            if isinstance(value, dict) and not value.keys() <= cls.model_fields.keys():
                raise PydanticCustomError("fields", f"Give no other fields than {', '.join(cls.model_fields)}")
            return value

    @app.post("/generate", responses=refusals, response_model=GenerateResponse)
    async def generate(request: GenerateRequest) -> Any:
        """Write on from a prompt; with `stream` as server-sent events, the last with what else the answer says."""
        options = request.model_dump(exclude={"prompt", "stream"})
        events = _written(live, metrics, request.prompt, options)
        # What is wrong with the request is known before the first piece, while its status can still say so.
        event = await anext(events)
        if request.stream:
            return StreamingResponse(_server_sent(events), media_type="text/event-stream")
        return [event, *[event async for event in events]][-1]


async def _written(
    live: LiveModel, metrics: Metrics, prompt: str, options: Mapping[str, Any]
) -> AsyncGenerator[str | GenerateResponse]:
    """Pieces of the text, the first of them empty, and at the end the whole."""
    with live.use() as held:
        async with contextlib.aclosing(held.runner.write(prompt, options)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Generation):
                    metrics.generated(len(piece.token_ids))
                    yield _response(held.resolved, piece)
                else:
                    yield piece


async def _server_sent(events: AsyncGenerator[str | GenerateResponse]) -> AsyncIterator[str]:
    try:
        async with contextlib.aclosing(events):
            async for event in events:
                yield _event({"text": event} if isinstance(event, str) else _end(event))
    except RegistryError as error:
        yield _event(error_body(type(error).__name__, " ".join(str(error).split())))


def _end(whole: GenerateResponse) -> dict[str, Any]:
    """The last event: what the pieces have not said."""
    return {name: value for name, value in asdict(whole).items() if name != "text"}


def _event(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _response(resolved: Resolved, found: Generation) -> GenerateResponse:
    return GenerateResponse(
        resolved.model,
        resolved.version,
        resolved.digest,
        found.text,
        found.finish_reason,
        found.prompt_tokens,
        len(found.token_ids),
    )
