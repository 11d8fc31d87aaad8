"""POST /predict of a tagger, from a real process: spans with their places in the text, and bounds as for any model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from slm_registry import Registry
from slm_registry.cli import main

from tests.registry.generators import make_tagger
from tests.registry.serverprocess import ServerProcess

TEXT = "東 Ada  Lovelace\tto 😀 London"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("server")
    registry = Registry(root / "store", cache=root / "cache", actor="alice")
    registry.publish(make_tagger(root / "bundle"), "tags", lineage={}, alias="production")
    with ServerProcess(root / "store", root / "cache", "tags@production", "--max-texts", "3") as server:
        yield server


def test_spans_are_cut_from_the_text_at_their_places(served: ServerProcess) -> None:
    answer = served.client().predict([TEXT, "", "nobody"])
    assert {key: answer[key] for key in ("model", "version", "digest")} == {
        key: served.started[key] for key in ("model", "version", "digest")
    }
    found, none, nobody = answer["predictions"]
    assert [(span["label"], span["text"], span["start"], span["end"]) for span in found] == [
        ("PER", "Ada  Lovelace", 2, 15),
        ("LOC", "London", 21, 27),
    ]
    assert all(TEXT[span["start"] : span["end"]] == span["text"] and 0.5 < span["score"] < 1 for span in found)
    assert none == nobody == []
    assert served.client().predict("Grace")["predictions"][0][0]["label"] == "PER"


def test_texts_longer_than_the_context_are_read_to_their_end(served: ServerProcess) -> None:
    (found,) = served.client().predict("verb " * 40 + "Ada")["predictions"]
    assert len(found) == 41 and (found[-1]["label"], found[-1]["start"]) == ("PER", 200)


def test_spans_are_counted(served: ServerProcess) -> None:
    client = served.client()
    client.predict(TEXT)
    before = client.metric("slm_spans_total")
    client.predict([TEXT, "to"])
    assert client.metric("slm_spans_total") == before + 2


def test_openapi_describes_spans(served: ServerProcess) -> None:
    described = served.client().get("/openapi.json")
    validate(described)
    assert set(described["paths"]) == {"/predict", "/health", "/metrics", "/model"}
    answer = described["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/SpansResponse"}
    assert set(described["components"]["schemas"]["Spotted"]["properties"]) == {
        "label",
        "text",
        "start",
        "end",
        "score",
    }


@pytest.mark.parametrize("body", [{"texts": ["x"] * 4}, {"texts": [3]}, {"texts": "x", "more": 1}, {}])
def test_what_is_no_request(served: ServerProcess, body: object) -> None:
    client = served.client()
    status, error = client.refused(body)
    assert (status, error["type"]) == (422, "UsageError")
    assert client("POST", "/generate", b"{}")[0] == 404


def test_there_is_no_log_of_spans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Registry(tmp_path / "store", cache=tmp_path / "cache").publish(make_tagger(tmp_path / "tagger"), "tags", lineage={})
    log = ["--log", str(tmp_path / "log"), "--store", str(tmp_path / "store")]
    assert main(["serve", "tags", "--port", "0", *log]) == 2
    assert "tags is for token-classification; the log has one label a text" in capsys.readouterr().err
