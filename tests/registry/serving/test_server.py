"""The prediction server, as a real process: its API, its bounds, its log, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from openapi_spec_validator import validate
from slm_registry import Registry, UsageError, __version__
from slm_registry.cli import main
from slm_registry.runtime.text_classification import TextClassifier
from slm_registry.serving.metrics import Metrics
from slm_registry.serving.server import Options, serve

from tests.registry.helpers import REPOSITORY, make_bundle
from tests.registry.serverprocess import Client, ServerProcess, until

LIMITS = ("--max-texts", "4", "--max-characters", "50")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("server")
    registry = Registry(root / "store", cache=root / "cache", actor="alice")
    registry.publish(make_bundle(root / "bundle"), "m", lineage={}, alias="production")
    with ServerProcess(root / "store", root / "cache", "m@production", *LIMITS) as server:
        yield server


@pytest.fixture
def client(served: ServerProcess) -> Client:
    return served.client()


def test_one_text_and_many(served: ServerProcess, client: Client) -> None:
    one = client.predict("where is my parcel")
    assert {key: one[key] for key in ("model", "version", "digest")} == {
        key: served.started[key] for key in ("model", "version", "digest")
    }
    assert one["predictions"][0]["label"] == "delivery"
    assert one["predictions"][0]["probability"] == pytest.approx(0.9094, abs=1e-4)
    many = client.predict(["money back", "hello", "parcel"])
    assert [item["label"] for item in many["predictions"]] == ["refund", "other", "delivery"]
    assert client.predict([])["predictions"] == []


def test_model_and_health(served: ServerProcess, client: Client) -> None:
    model = client.get("/model")
    assert (model["ref"], model["version"], model["digest"]) == ("m@production", "1.0.0", served.started["digest"])
    assert model["as_of"].endswith("+00:00")
    health = client.get("/health")
    assert (health["status"], health["problem"]) == ("ok", None)


def test_metrics(client: Client) -> None:
    before = client.metric("slm_predictions_total") if b"slm_predictions_total" in client("GET", "/metrics")[1] else 0
    client.predict(["parcel", "hello"])
    assert client.metric("slm_predictions_total") == before + 2
    assert client.metric("slm_degraded") == 0
    assert client.metric("slm_model_info") == 1
    assert client.metric("slm_request_seconds_count") >= 1
    client("GET", "/somebody/elses/path")
    page = client("GET", "/metrics")[1].decode()
    assert 'slm_requests_total{path="other",status="404"}' in page
    assert "somebody" not in page


def test_openapi_is_valid_and_typed(client: Client) -> None:
    described = client.get("/openapi.json")
    validate(described)
    assert described["info"] == {"title": "slm-registry", "version": __version__}
    assert set(described["paths"]) == {"/predict", "/health", "/metrics", "/model"}
    text, many = described["components"]["schemas"]["PredictRequest"]["properties"]["texts"]["anyOf"]
    assert (text["type"], text["maxLength"]) == ("string", 50)
    assert (many["type"], many["maxItems"], many["items"]["maxLength"]) == ("array", 4, 50)
    answer = described["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/PredictResponse"}


@pytest.mark.parametrize(
    "body",
    [
        {"texts": ["x"] * 5},
        {"texts": "x" * 51},
        {"texts": ["x", "y" * 51]},
        {"texts": ["x", 7]},
        {"texts": None},
        {"texts": "\ud800"},
        {"text": ["x"]},
        {"texts": ["x"], "more": 1},
        {"texts": ["x"], "k" * 1_000_000: 1},
        {f"k{number}": 1 for number in range(100_000)},
        {},
        [],
        b"",
        b"{",
        b'{"texts": ["\xff"]}',
        b'{"texts": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_request(client: Client, body: Any) -> None:
    status, error = client.refused(body)
    assert status == (400 if isinstance(body, bytes) and len(body) > 1 else 422)
    assert error["type"] == "UsageError"
    assert len(error["message"]) < 500
    assert "yyyy" not in error["message"]
    assert client.predict("hello")["predictions"][0]["label"] == "other"


def test_many_unknown_keys_are_one_error(client: Client) -> None:
    status, error = client.refused({"texts": ["x"], **{f"k{number}": 1 for number in range(300_000)}})
    assert (status, error["message"]) == (422, "body: Give one field, texts, and no other")


def test_bodies_beyond_bounds(served: ServerProcess, client: Client) -> None:
    status, error = client.refused(b" " * (4 << 20) + b"{}")
    assert (status, error["type"]) == (413, "UsageError")
    other = served.client()
    chunks = (b" " * 65536 for _ in range(80))
    # Refused while it is still being sent: whether the answer arrives before the end of the connection is a race.
    with contextlib.suppress(ConnectionError):
        other.connection.request("POST", "/predict", chunks, {"Content-Type": "application/json"})  # type: ignore[arg-type]
        assert other.connection.getresponse().status == 413
    assert 'slm_requests_total{path="/predict",status="413"} 2' in client("GET", "/metrics")[1].decode()


def test_strange_texts_and_methods(client: Client) -> None:
    found = client.predict(["\0", "🦆" * 50, "", "\u202eparcel"])
    assert len(found["predictions"]) == 4
    assert client("GET", "/predict")[0] == 405
    status, body = client("GET", "/nothing")
    assert (status, json.loads(body)["error"]["type"]) == (404, "UsageError")


def test_concurrent_requests_get_their_own_answers(served: ServerProcess) -> None:
    words = {"parcel": "delivery", "money": "refund", "hello": "other"}
    local = threading.local()

    def ask(number: int) -> None:
        if not hasattr(local, "client"):
            local.client = served.client()
        texts = [list(words)[(number + step) % 3] for step in range(1 + number % 4)]
        found = local.client.predict(texts)["predictions"]
        assert [item["label"] for item in found] == [words[text] for text in texts]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(400)))


def publish(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache", actor="alice")
    registry.publish(make_bundle(tmp_path / "bundle"), "m", lineage={}, alias="production")
    return registry


@pytest.mark.parametrize("with_text", [False, True])
def test_the_prediction_log(tmp_path: Path, with_text: bool) -> None:
    publish(tmp_path)
    log = tmp_path / "predictions.jsonl"
    options = ["--log", str(log)] + ["--log-texts"] * with_text
    with ServerProcess(tmp_path / "store", tmp_path / "cache", "m", *options) as server:
        client = server.client()
        client.predict(["parcel \u2028 ü", "hello"])
        moved = tmp_path / "moved.jsonl"
        log.rename(moved)
        client.predict("money")
        digest = server.started["digest"]
    lines = [json.loads(line) for line in (moved.read_text() + log.read_text()).splitlines()]
    assert log.stat().st_mode & 0o777 == 0o600
    assert [(line["label"], line["length"]) for line in lines] == [("delivery", 10), ("other", 5), ("refund", 5)]
    assert [line["words"] for line in lines] == [2, 1, 1]
    pieces = TextClassifier.from_folder(tmp_path / "bundle").pieces(["parcel \u2028 ü", "hello", "money"])
    assert [line["pieces"] for line in lines] == pieces and pieces[0] > pieces[1]
    fields = {"time", "model", "version", "digest", "length", "words", "pieces", "label", "probability"} | (
        {"text"} if with_text else set()
    )
    for line in lines:
        assert set(line) == fields
        assert (line["model"], line["version"], line["digest"]) == ("m", "1.0.0", digest)
    assert ("parcel" in moved.read_text()) == with_text


def test_a_full_disk_under_the_log_stops_no_prediction(tmp_path: Path) -> None:
    publish(tmp_path)
    with ServerProcess(tmp_path / "store", tmp_path / "cache", "m", "--log", "/dev/full") as server:
        client = server.client()
        assert client.predict(["hello", "parcel"])["predictions"][0]["label"] == "other"
        health = client.get("/health")
        assert health["status"] == "degraded"
        assert "prediction log" in health["problem"]
        assert "No space left" in health["problem"]
        assert client.metric("slm_prediction_log_failures_total") == 2
        assert client.metric("slm_degraded") == 1


def half_sent(server: ServerProcess, body: bytes) -> socket.socket:
    """A connection that has sent its request but for the last byte."""
    connection = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=30)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[:-1])
    return connection


def test_sigterm_finishes_what_is_under_way(tmp_path: Path) -> None:
    publish(tmp_path)
    body = json.dumps({"texts": ["where is my parcel"]}).encode()
    with ServerProcess(tmp_path / "store", tmp_path / "cache", "m") as server:
        running = [half_sent(server, body) for _ in range(8)]
        asking = server.client()
        # The one that asks is in flight itself.
        until(lambda: asking.metric("slm_requests_in_flight") == 9)
        server.process.terminate()
        until(lambda: ending(server))
        for connection in running:
            connection.sendall(body[-1:])
            answer = http.client.HTTPResponse(connection, method="POST")
            answer.begin()
            assert answer.status == 200
            assert [item["label"] for item in json.loads(answer.read())["predictions"]] == ["delivery"]
        assert server.ended() == (0, "")
        with pytest.raises(ConnectionRefusedError):
            server.client().get("/health")


def ending(server: ServerProcess) -> bool:
    """Whether it takes no new work: it says that it is draining, or takes no connection any more."""
    try:
        status, body = server.client()("GET", "/health")
    except ConnectionError:
        return True
    return status == 503 and json.loads(body)["status"] == "draining"


def test_a_connection_that_says_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    publish(tmp_path)
    with ServerProcess(tmp_path / "store", tmp_path / "cache", "m", "--grace", "1") as server:
        port = int(server.url.rsplit(":", 1)[1])
        with (
            socket.create_connection(("127.0.0.1", port)) as idle,
            socket.create_connection(("127.0.0.1", port)) as half,
        ):
            half.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
            until(lambda: server.client().metric("slm_requests_in_flight") == 2)
            code, _ = server.stop(timeout=20)
            assert code == 0
            assert idle.recv(10) == b""


def test_too_much_waits(tmp_path: Path) -> None:
    """Refused at once, and told when to come again; those that wait are answered."""
    publish(tmp_path)
    code = (
        "import sys; from slm_registry import Registry\n"
        "from slm_registry.serving.server import Options, Service, serve\n"
        "service = Service.start(Registry(sys.argv[1]), 'm', Options(waiting=4, texts=4, characters=200_000))\n"
        "serve(service, '127.0.0.1', 0, lambda url: print(url, flush=True))\n"
    )
    environment = {
        "PYTHONPATH": str(REPOSITORY / "registry"),
        "HOME": str(tmp_path),
        "SLM_REGISTRY_CACHE": str(tmp_path / "cache"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        body = json.dumps({"texts": ["parcel " * 20_000] * 4}).encode()
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda _: Client(url)("POST", "/predict", body), range(12)))
        statuses = [status for status, _ in found]
        assert set(statuses) == {200, 503}
        refused = next(json.loads(answer)["error"] for status, answer in found if status == 503)
        assert refused["type"] == "OverloadedError"
    finally:
        process.kill()
        process.communicate()


def test_it_says_why_it_does_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(tmp_path / "cache"))
    publish(tmp_path)
    store = str(tmp_path / "store")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, code, complaint in (
            (("m@staging",), 3, "no alias 'staging'"),
            (("other",), 3, "has no model 'other'"),
            (("m", "--port", port), 2, f"cannot listen on 127.0.0.1 port {port}"),
            (("m", "--port", "70000"), 2, "cannot listen"),
            (("m", "--host", "no.such.host.invalid"), 2, "cannot listen"),
            (("m", "--log-texts"), 2, "add --log FILE"),
            (("m", "--workers", "0"), 2, "workers is 0"),
            (("m", "--poll", "nan"), 2, "poll is nan"),
            (("m", "--grace", "inf"), 2, "grace is inf"),
            (("m", "--grace", "-1"), 2, "grace is -1"),
            (("m", "--max-age", "nan"), 2, "max-age is nan"),
            (("m", "--threads", "0"), 2, "threads is 0"),
            (("m", "--log", str(tmp_path)), 7, "cannot write"),
        ):
            assert main(["serve", *arguments, "--store", store]) == code, arguments
            assert complaint in capsys.readouterr().err


def test_bounds_that_bound_nothing() -> None:
    for name in ("poll", "grace", "body_seconds"):
        for value in (math.nan, math.inf, 0.0):
            with pytest.raises(UsageError, match=f"{name.replace('_', ' ')} is"):
                Options(**{name: value})


def test_part_of_a_second_is_still_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    graces: list[int | None] = []

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        graces.append(self.config.timeout_graceful_shutdown)
        sockets[0].close()

    monkeypatch.setattr("uvicorn.Server.run", run)
    live = SimpleNamespace(task="text-classification")
    service: Any = SimpleNamespace(options=Options(grace=0.2), metrics=Metrics(), live=live, label=None)
    serve(service, "127.0.0.1", 0, print)
    assert graces == [1]


def test_without_the_extra(tmp_path: Path) -> None:
    publish(tmp_path)
    code = (
        "import sys; sys.modules['fastapi'] = None; from slm_registry.cli import main;"
        f"sys.exit(main(['serve', 'm', '--store', {str(tmp_path / 'store')!r}]))"
    )
    environment = {"PYTHONPATH": str(REPOSITORY / "registry"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr == "slm-registry: serve needs fastapi; install slm-registry[serve]\n"
