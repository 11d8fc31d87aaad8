"""POST /generate of the server, as a real process: whole texts, server-sent events, bounds, and another kind of model."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from slm_registry import Registry
from slm_registry.cli import main

from tests.registry.generators import STORY, make_reciter
from tests.registry.helpers import make_bundle
from tests.registry.serverprocess import Client, ServerProcess, until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("server")
    registry = Registry(root / "store", cache=root / "cache", actor="alice")
    registry.publish(make_reciter(root / "bundle"), "story", lineage={}, alias="production")
    limits = ("--max-new-tokens", "60", "--max-characters", "70")
    with ServerProcess(root / "store", root / "cache", "story@production", *limits) as server:
        yield server


def post(client: Client, **body: Any) -> tuple[int, bytes]:
    return client("POST", "/generate", json.dumps(body).encode())


def events(data: bytes) -> list[Any]:
    lines = data.decode().split("\n\n")
    assert lines.pop() == ""
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_text_at_once(served: ServerProcess) -> None:
    status, body = post(served.client(), prompt="O")
    found = {key: served.started[key] for key in ("model", "version", "digest")}
    assert status == 200
    tokens = len(STORY[1:].encode())
    assert json.loads(body) == {
        **found,
        "text": STORY[1:],
        "finish_reason": "end",
        "prompt_tokens": 1,
        "new_tokens": tokens,
    }
    options = {"temperature": 0.1, "top_k": 5, "top_p": 0.9, "seed": 1, "stop": ["time"], "repetition_penalty": 1}
    assert json.loads(post(served.client(), prompt="O", **options)[1])["text"] == "nce upon a "


def test_a_text_piece_by_piece(served: ServerProcess) -> None:
    client = served.client()
    before = client.metric("slm_generated_tokens_total")
    status, body = post(client, prompt="O", stream=True, max_new_tokens=20)
    assert status == 200
    *pieces, end = events(body)
    # 20 bytes: the last is the second one's first.
    assert [piece["text"] for piece in pieces] == [*"nce upon a time 東", "\ufffd"]
    assert (end["finish_reason"], end["new_tokens"], end["version"]) == ("length", 20, "1.0.0")
    assert "text" not in end
    assert client.metric("slm_generated_tokens_total") == before + 20
    assert client.metric("slm_request_seconds_count") >= 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": "x" * 71},
        {"prompt": 3},
        {"prompt": ""},
        {"prompt": "x" * 64},
        {"prompt": "x" * 64, "stream": True},
        {"prompt": "x", "max_new_tokens": 61},
        {"prompt": "x", "max_new_tokens": 0},
        {"prompt": "x", "temperature": -1},
        {"prompt": "x", "temperature": "hot"},
        {"prompt": "x", "top_p": 2, "stream": True},
        {"prompt": "x", "seed": -3},
        {"prompt": "x", "stop": [""]},
        {"prompt": "x", "stop": "end"},
        {"prompt": "x", "stop": ["y"] * 17},
        {"prompt": "x", "more": 1},
        {f"k{number}": 1 for number in range(100_000)},
        [],
    ],
)
def test_what_is_no_request(served: ServerProcess, body: Any) -> None:
    client = served.client()
    status, answer = client("POST", "/generate", json.dumps(body).encode())
    error = json.loads(answer)["error"]
    assert (status, error["type"]) == (422, "UsageError")
    assert len(error["message"]) < 500
    assert post(client, prompt="O", max_new_tokens=3)[0] == 200


def test_bodies_and_paths(served: ServerProcess) -> None:
    client = served.client()
    assert client("POST", "/generate", b" " * (4 << 20) + b"{}")[0] == 413
    client = served.client()
    assert client("POST", "/predict", b'{"texts": ["x"]}')[0] == 404
    described = client.get("/openapi.json")
    validate(described)
    assert set(described["paths"]) == {"/generate", "/health", "/metrics", "/model"}
    field = described["components"]["schemas"]["GenerateRequest"]["properties"]["max_new_tokens"]
    assert (field["maximum"], field["default"]) == (60, 60)


def test_many_at_once_get_their_own(served: ServerProcess) -> None:
    def ask(count: int) -> None:
        status, body = post(served.client(), prompt=STORY[:count], stream=count % 2 == 0, stop=[" 東"])
        pieces = events(body)[:-1] if count % 2 == 0 else [json.loads(body)]
        assert status == 200
        assert "".join(piece["text"] for piece in pieces) == STORY[count : STORY.index(" 東")]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, [1 + number % 12 for number in range(60)]))


def test_a_reader_that_goes_away_stops_the_writing(served: ServerProcess) -> None:
    port = int(served.url.rsplit(":", 1)[1])
    body = json.dumps({"prompt": "O", "stream": True}).encode()
    head = (
        f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(head.encode() + body)
            connection.recv(10)
    client = served.client()
    # The one that asks is in flight itself.
    until(lambda: client.metric("slm_requests_in_flight") == 1)
    assert post(client, prompt="O", max_new_tokens=3)[0] == 200
    assert client.get("/health")["status"] == "ok"


def test_the_alias_moves_to_another_text_but_not_to_another_kind(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache", actor="alice")
    registry.publish(make_reciter(tmp_path / "one"), "m", lineage={}, alias="production")
    with ServerProcess(tmp_path / "store", tmp_path / "cache", "m@production", "--poll", "0.1") as server:
        client = server.client()
        registry.publish(make_reciter(tmp_path / "two", "Other words."), "m", lineage={}, alias="production")
        until(lambda: client.get("/model")["version"] == "1.0.1")
        assert json.loads(post(client, prompt="O")[1])["text"] == "ther words."
        registry.publish(make_bundle(tmp_path / "three"), "m", lineage={}, alias="production")
        until(lambda: client.get("/health")["status"] == "degraded")
        problem = client.get("/health")["problem"]
        assert problem == "m@production is for text-classification now; this server was started for text-generation"
        assert json.loads(post(client, prompt="O")[1])["text"] == "ther words."


def test_sigterm_ends_a_stream_well(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache", actor="alice")
    registry.publish(make_reciter(tmp_path / "one", "word " * 4000, positions=20_000), "m", lineage={})
    with ServerProcess(tmp_path / "store", tmp_path / "cache", "m", "--max-new-tokens", "20000") as server:
        connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rsplit(":", 1)[1]), timeout=60)
        body = json.dumps({"prompt": "w", "stream": True, "max_new_tokens": 4000})
        connection.request("POST", "/generate", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        first = answer.read(20)
        server.process.terminate()
        found = events(first + answer.read())
        assert found[-1]["new_tokens"] == 4000
        assert "".join(piece["text"] for piece in found[:-1]) == ("word " * 4000)[1:4001]
        assert server.ended()[0] == 0


def test_what_a_generator_does_not_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache", actor="alice")
    registry.publish(make_reciter(tmp_path / "story"), "story", lineage={})
    store = ["--store", str(tmp_path / "store")]
    assert main(["serve", "story", "--port", "0", "--log", str(tmp_path / "log"), *store]) == 2
    assert "the log has one label a text: leave --log out" in capsys.readouterr().err
