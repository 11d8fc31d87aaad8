"""The prediction server: HTTP around the model behind a reference. Needs the extra `serve`."""

# Without postponed annotations: FastAPI reads those of functions and classes that are made in `make_app`.

import asyncio
import contextlib
import logging
import math
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slm_registry import __version__
from slm_registry.client import Registry
from slm_registry.errors import RegistryError, StoreError, UsageError
from slm_registry.finding.records import Resolved
from slm_registry.runtime.model import DEFAULT_BATCH
from slm_registry.runtime.text_classification import Prediction, TextClassifier
from slm_registry.runtime.token_classification import Span, TokenClassifier
from slm_registry.serving.generate import add_generate
from slm_registry.serving.httpedge import Edge, error_body
from slm_registry.serving.httptypes import (
    ErrorResponse,
    HealthResponse,
    Labelled,
    ModelResponse,
    PredictResponse,
    SpansResponse,
    Spotted,
)
from slm_registry.serving.livemodel import LiveModel
from slm_registry.serving.metrics import Metrics
from slm_registry.serving.predict import add_predict
from slm_registry.serving.predictionlog import PredictionLog
from slm_registry.serving.runner import OverloadedError, Runner

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger("slm_registry")
_PATHS = frozenset({"/predict", "/generate", "/health", "/metrics", "/model", "/openapi.json"})
_REFUSALS = (400, 408, 413, 422, 500, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a server may be told. Times are in seconds, `body` is in bytes, `characters` is that of one text,
    `new_tokens` how many may be written for one.

    `threads` is what one request computes with, `workers` how many run at once, `batch_size` how many texts of one
    request go through the model at a time, `waiting` how many texts may be in hand. `log` is where predictions go, with
    their text if `log_texts`.
    """

    threads: int = 1
    workers: int = 1
    max_length: int | None = None
    batch_size: int = DEFAULT_BATCH
    poll: float = 5.0
    texts: int = 256
    characters: int = 20_000
    body: int = 4 << 20
    waiting: int = 4096
    new_tokens: int = 512
    body_seconds: float = 30.0
    grace: float = 30.0
    log: Path | None = None
    log_texts: bool = False

    def __post_init__(self) -> None:
        for name in (
            "workers",
            "poll",
            "texts",
            "characters",
            "body",
            "waiting",
            "new_tokens",
            "body_seconds",
            "grace",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name.replace('_', ' ')} is {getattr(self, name)!r}; give a number above 0")


@dataclass(slots=True)
class Service:
    """What the handlers share: the model, the figures, the log, and whether the server is on its way out."""

    live: LiveModel
    options: Options
    metrics: Metrics = field(default_factory=Metrics)
    log: PredictionLog | None = None
    log_problem: str | None = None
    draining: bool = False

    @classmethod
    def start(cls, registry: Registry, ref: str, options: Options) -> "Service":
        """Load the model. Raises what `Registry.load` raises."""
        metrics = Metrics()
        live = LiveModel(
            registry,
            ref,
            load=lambda exact: registry.load(exact, options.threads, options.max_length, options.batch_size),
            make_runner=lambda model: Runner(model, workers=options.workers, waiting=options.waiting),
            poll=options.poll,
        )
        try:
            _check_logged(live, options)
            log = PredictionLog(options.log, texts=options.log_texts) if options.log else None
        except BaseException:
            live.close()
            raise
        service = cls(live, options, metrics, log)
        metrics.watch(live, service.problem)
        return service

    def problem(self) -> str | None:
        """What is wrong while predictions go on; None where nothing is."""
        return self.live.status.problem or self.log_problem

    def as_of(self) -> str:
        """When the reference was last looked up, in UTC."""
        return self.live.status.as_of.isoformat(timespec="milliseconds")

    async def label(self, texts: list[str]) -> PredictResponse:
        """A classifier's predictions, counted and logged, and the version that made them."""
        with self.live.use() as held:
            predictions: list[Prediction] = await held.runner.predict(texts)
            pieces = await held.runner.pieces(texts) if self.log is not None else []
        self.metrics.predicted(predictions)
        if self.log is not None:
            self._write(self.log, held.resolved, texts, pieces, predictions)
        found, labelled = held.resolved, [Labelled(one.label, one.probability) for one in predictions]
        return PredictResponse(found.model, found.version, found.digest, labelled)

    async def spans(self, texts: list[str]) -> SpansResponse:
        """A tagger's spans, counted, and the version that found them."""
        with self.live.use() as held:
            rows: list[list[Span]] = await held.runner.predict(texts)
        self.metrics.spotted(rows)
        found, spotted = held.resolved, [[Spotted(*span) for span in row] for row in rows]
        return SpansResponse(found.model, found.version, found.digest, spotted)

    def _write(
        self,
        log: PredictionLog,
        resolved: Resolved,
        texts: list[str],
        pieces: list[int],
        predictions: list[Prediction],
    ) -> None:
        """Predictions are worth more than their record: a full disk shows in /health and /metrics."""
        try:
            log.write(resolved, texts, pieces, predictions)
            self.log_problem = None
        except StoreError as error:
            self.log_problem = f"the prediction log: {error}"
            self.metrics.unlogged(len(texts))


def make_app(service: Service) -> "FastAPI":
    """The application. Its lifespan follows the reference, and closes the model at the end."""
    from fastapi import FastAPI

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        following = asyncio.create_task(service.live.follow())
        try:
            yield
        finally:
            following.cancel()
            service.live.close()

    # No /docs: its page would fetch scripts from elsewhere.
    app = FastAPI(title="slm-registry", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    options = service.options
    bounds = {"most_texts": options.texts, "characters": options.characters}
    if service.live.task == TextClassifier.task:
        add_predict(app, service.label, PredictResponse, _refusals(), **bounds)
    elif service.live.task == TokenClassifier.task:
        add_predict(app, service.spans, SpansResponse, _refusals(), **bounds)
    else:
        add_generate(
            app,
            service.live,
            service.metrics,
            _refusals(),
            characters=options.characters,
            new_tokens=options.new_tokens,
        )
    _add_state(app, service)
    _add_errors(app)
    app.add_middleware(
        Edge,
        paths=_PATHS,
        metrics=service.metrics,
        body=options.body,
        seconds=options.body_seconds,
    )
    return app


def _refusals() -> dict[int | str, dict[str, Any]]:
    return {code: {"model": ErrorResponse} for code in _REFUSALS}


def _check_logged(live: LiveModel, options: Options) -> None:
    """Raise UsageError where there is to be a log, and the model has nothing to log."""
    if options.log is not None and live.task != TextClassifier.task:
        raise UsageError(f"{live.ref} is for {live.task}; the log has one label a text: leave --log out")


def _add_state(app: "FastAPI", service: Service) -> None:
    from fastapi import Response

    @app.get("/model")
    async def model() -> ModelResponse:
        """Which version serves."""
        live, found = service.live, service.live.resolved
        return ModelResponse(live.ref, found.model, found.version, found.digest, service.as_of())

    @app.get("/health", responses={503: {"model": HealthResponse}})
    async def health(response: Response) -> HealthResponse:
        """Whether to send requests here."""
        found, problem = service.live.resolved, service.problem()
        response.status_code = 503 if service.draining else 200
        status: Literal["ok", "degraded", "draining"] = "degraded" if problem else "ok"
        if service.draining:
            status = "draining"
        return HealthResponse(status, found.model, found.version, service.as_of(), problem)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        page, kind = service.metrics.page()
        return Response(page, headers={"content-type": kind})


def _add_errors(app: "FastAPI") -> None:
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # What was sent is not repeated: it may be long, and it may be private.
        found = [f"{'.'.join(str(part)[:40] for part in item['loc'])}: {item['msg']}" for item in error.errors()[:3]]
        return JSONResponse(error_body("UsageError", "; ".join(found)), 422)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(error_body("UsageError", f"{error.detail}; see /openapi.json"), error.status_code)

    @app.exception_handler(OverloadedError)
    async def overloaded(_: Request, error: OverloadedError) -> JSONResponse:
        message = "too many texts wait already; send it again a little later"
        return JSONResponse(error_body("OverloadedError", message), 503, {"retry-after": "1"})

    @app.exception_handler(RegistryError)
    async def failed(_: Request, error: RegistryError) -> JSONResponse:
        status = 422 if isinstance(error, UsageError) else 500
        return JSONResponse(error_body(type(error).__name__, " ".join(str(error).split())), status)


def serve(service: Service, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until SIGTERM or SIGINT, then finish what is under way; `ready` gets the address. Port 0 picks a free one."""
    import uvicorn

    listening = _listen(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        make_app(service),
        log_level="warning",
        access_log=False,
        # It takes whole seconds.
        timeout_graceful_shutdown=math.ceil(service.options.grace),
    )

    class _Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(url)

        def handle_exit(self, sig: int, frame: Any) -> None:
            service.draining = True
            super().handle_exit(sig, frame)

    # uvicorn raises the signal once more when all is done, for whoever listened before: that must not be an end by force.
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _Server(config).run(sockets=[listening])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host} port {port}: {error}; name another --host or --port") from error
