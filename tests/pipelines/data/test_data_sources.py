"""Local, http, s3 and the hub, against real servers on loopback; and what each says when it cannot deliver."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.config import Data
from pipelines.data.sources import local_copy, read_pointer, read_source
from pipelines.errors import DataError, TransientError

CSV = b"text,label\nhello,a\nbye,b\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).parents[3]


def data(source: str, splits: dict, unlabelled: str | None = None) -> Data:
    checks = dict.fromkeys(
        ("empty_text", "missing_label", "duplicates", "conflicting_labels", "leakage_exact", "encoding_damage"), "fail"
    )
    sections = {
        "long_text": {"action": "fail", "max_chars": 100},
        "label_set": {"action": "fail", "allowed": None},
        "class_count": {"action": "fail", "min_rows": 2},
        "leakage_near": {"action": "fail", "similarity": 0.8},
        "language": None,
    }
    return Data(
        source=source,
        text_column="text",
        label_column="label",
        splits=splits,
        unlabelled=unlabelled,
        checks={**checks, **sections},
    )


MADE = {"kind": "made", "file": None, "validation": 0.2, "test": 0.2}
GIVEN = {"kind": "given", "train": "train.csv", "validation": 0.2, "test": "test.csv"}


@pytest.fixture
def server():
    """A local web server: `answers` maps a path to (status, headers, body)."""
    answers: dict[str, tuple[int, dict[str, str], bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            code, headers, body = answers.get(self.path, (404, {}, b""))
            self.send_response(code)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield answers, f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_folder_of_splits_and_unlabelled_text(tmp_path):
    (tmp_path / "train.csv").write_bytes(CSV)
    (tmp_path / "test.csv").write_bytes(CSV)
    (tmp_path / "more.txt").write_text("one\ntwo\n", encoding="utf-8")
    rows, files = read_source(str(tmp_path), data(str(tmp_path), GIVEN, "more.txt"))
    assert [(row.split, row.file, row.line, row.text, row.label) for row in rows] == [
        ("train", "train.csv", 2, "hello", "a"),
        ("train", "train.csv", 3, "bye", "b"),
        ("test", "test.csv", 2, "hello", "a"),
        ("test", "test.csv", 3, "bye", "b"),
        ("unlabelled", "more.txt", 1, "one", None),
        ("unlabelled", "more.txt", 2, "two", None),
    ]
    assert files[0].sha256 == hashlib.sha256(CSV).hexdigest() and files[0].bytes == len(CSV)
    assert [(file.split, file.file, file.rows) for file in files] == [
        ("train", "train.csv", 2),
        ("test", "test.csv", 2),
        ("unlabelled", "more.txt", 2),
    ]


def test_http(server):
    answers, url = server
    answers["/d/a.csv?token=1"] = (200, {}, CSV)
    rows, files = read_source(f"{url}/d/a.csv?token=1", data(url, MADE))
    assert [row.text for row in rows] == ["hello", "bye"] and files[0].file == "a.csv"
    answers["/d/train.csv"] = answers["/d/test.csv"] = (200, {}, CSV)
    assert len(read_source(f"{url}/d/", data(url, GIVEN))[0]) == 4


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (404, DataError, "404 Not Found; check data.source"),
        (403, DataError, "403 Forbidden; it wants credentials"),
        (401, DataError, "credentials"),
        (500, TransientError, "500 Internal Server Error; it may pass"),
        (503, TransientError, "503"),
        (429, TransientError, "429"),
    ],
)
def test_http_refusals(server, code, error, words):
    answers, url = server
    answers["/a.csv"] = (code, {}, b"no")
    with pytest.raises(error) as caught:
        read_source(f"{url}/a.csv", data(url, MADE))
    assert words in str(caught.value) and f"{url}/a.csv" in str(caught.value)


def test_http_that_breaks_off_or_is_not_there(server, free_port, tmp_path):
    answers, url = server
    answers["/a.csv"] = (200, {"Content-Length": "999"}, CSV)
    with pytest.raises(TransientError, match=f"{len(CSV)} of 999 bytes came"):
        local_copy(f"{url}/a.csv", tmp_path)
    with pytest.raises(TransientError, match="no answer"):
        local_copy(f"http://127.0.0.1:{free_port}/a.csv", tmp_path)


def test_http_that_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("pipelines.data.sources.SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TransientError, match="no answer"):
        local_copy(f"http://127.0.0.1:{silent.getsockname()[1]}/a.csv", tmp_path)


def test_other_addresses_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"ftp:// are not read; use a path, http://"):
        local_copy("ftp://host/a.csv", tmp_path)


@pytest.fixture(scope="module")
def s3_server():
    from moto.server import ThreadedMotoServer

    started = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    started.start()
    yield "http://{}:{}".format(*started.get_host_and_port())
    started.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    import boto3

    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    client = boto3.client("s3")
    client.create_bucket(Bucket="rows")
    for name in ("train.csv", "test.csv"):
        client.put_object(Bucket="rows", Key=f"set/{name}", Body=CSV)
    return "s3://rows"


def test_s3_object_and_prefix(bucket):
    assert len(read_source(f"{bucket}/set/train.csv", data(bucket, MADE))[0]) == 2
    rows, files = read_source(f"{bucket}/set/", data(bucket, GIVEN))
    assert len(rows) == 4 and [file.file for file in files] == ["train.csv", "test.csv"]


MONTHS = MADE | {"file": "2026-*.csv"}


def test_every_file_that_a_name_matches(tmp_path):
    """In the order of their names, whatever the file system's; each row knows its file."""
    (tmp_path / "more").mkdir()
    for name, text in (("2026-02.csv", "b"), ("2026-01.csv", "a"), ("2025-12.csv", "old"), ("more/2026-03.csv", "c")):
        (tmp_path / name).write_text(f"text,label\n{text},x\n")
    rows, files = read_source(str(tmp_path), data(str(tmp_path), MONTHS))
    assert [(row.text, row.file) for row in rows] == [("a", "2026-01.csv"), ("b", "2026-02.csv")]
    assert [(file.split, file.file, file.rows) for file in files] == [
        ("uncut", "2026-01.csv", 1),
        ("uncut", "2026-02.csv", 1),
    ]
    rows, _ = read_source(str(tmp_path), data(str(tmp_path), MADE | {"file": "**/2026-*.csv"}))
    assert [row.text for row in rows] == ["a", "b", "c"]
    given = {"kind": "given", "train": "2026-*.csv", "validation": 0.2, "test": "more/*.csv"}
    rows, _ = read_source(str(tmp_path), data(str(tmp_path), given))
    assert [(row.split, row.text) for row in rows] == [("train", "a"), ("train", "b"), ("test", "c")]


def test_every_object_that_a_name_matches(bucket):
    import boto3

    for name in ("2026-02.csv", "2026-01.csv", "2025-12.csv", "more/2026-03.csv"):
        boto3.client("s3").put_object(Bucket="rows", Key=f"months/{name}", Body=CSV)
    rows, files = read_source("s3://rows/months/", data("s3://rows/months/", MONTHS))
    assert [file.file for file in files] == ["2026-01.csv", "2026-02.csv"]
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("here", "no file matches"),
        ("s3://rows/nothing", "no file matches"),
        ("https://host.invalid/set", "use s3:// or a folder"),
    ],
)
def test_a_name_that_matches_nothing(bucket, tmp_path, source, words):
    place = str(tmp_path) if source == "here" else source
    with pytest.raises(DataError, match=words):
        read_source(place, data(place, MONTHS))


@pytest.mark.parametrize("pattern", ["/etc/*.csv", "a**.csv"])
def test_a_name_that_is_no_pattern(tmp_path, pattern):
    with pytest.raises(DataError, match="write a name below the folder"):
        read_source(str(tmp_path), data(str(tmp_path), MADE | {"file": pattern}))


def test_s3_absent(bucket, tmp_path):
    for url in (f"{bucket}/set/absent.csv", "s3://nowhere/a.csv"):
        with pytest.raises(DataError, match=r"no such object or bucket; check data.source"):
            local_copy(url, tmp_path)


def test_s3_without_credentials(bucket, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"access refused .*set AWS_ACCESS_KEY_ID"):
        local_copy(f"{bucket}/set/train.csv", tmp_path)


def test_s3_that_refuses_or_fails(bucket, server, tmp_path, monkeypatch):
    answers, url = server
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    answers["/rows/a.csv"] = (403, {}, b"")
    with pytest.raises(DataError, match=r"access refused"):
        local_copy("s3://rows/a.csv", tmp_path)
    answers["/rows/a.csv"] = (503, {}, b"")
    with pytest.raises(TransientError, match=r"s3://rows/a.csv"):
        local_copy("s3://rows/a.csv", tmp_path)


def test_s3_that_is_not_there(bucket, free_port, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    with pytest.raises(TransientError, match=r"no answer.*AWS_ENDPOINT_URL"):
        local_copy(f"{bucket}/a.csv", tmp_path)


def pointer(folder: Path, **changes: str) -> Path:
    path = folder / "rows.hub.json"
    path.write_text(
        json.dumps({"repo": "org/name", "revision": COMMIT, "file": "train.csv"} | changes), encoding="utf-8"
    )
    return path


def from_hub(path: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Follow a pointer in a process of its own: the hub's client reads its settings when it is imported."""
    code = f"""
import time
time.sleep = lambda seconds: None  # the client waits 23 s between its own tries
from pathlib import Path
from pipelines.data.sources import local_copy
from pipelines.errors import FactoryError
try:
    print(local_copy({str(path)!r}, Path('unused')).read_text())
except FactoryError as error:
    print(type(error).__name__, error)
"""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(path.parent / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_hub_file_at_a_commit(server, tmp_path, free_port):
    answers, url = server
    about = {"X-Repo-Commit": COMMIT, "ETag": '"' + hashlib.sha256(CSV).hexdigest() + '"'}
    answers[f"/datasets/org/name/resolve/{COMMIT}/train.csv"] = (200, about, CSV)
    path = pointer(tmp_path)
    assert from_hub(path, url).stdout.strip() == CSV.decode().strip()
    # A pinned commit never changes, so what the cache holds needs no hub.
    assert from_hub(path, f"http://127.0.0.1:{free_port}").stdout.strip() == CSV.decode().strip()


def test_hub_refusals(server, tmp_path, free_port):
    answers, url = server
    path = pointer(tmp_path)
    gone = from_hub(path, url)
    assert gone.stdout.startswith("DataError") and f"train.csv of org/name at {COMMIT}" in gone.stdout, gone
    assert "404" in gone.stdout, gone
    answers[f"/datasets/org/name/resolve/{COMMIT}/train.csv"] = (404, {"X-Error-Code": "EntryNotFound"}, b"")
    assert from_hub(path, url).stdout.startswith("DataError")
    silent = from_hub(path, f"http://127.0.0.1:{free_port}")
    assert silent.stdout.startswith("TransientError") and "does not answer" in silent.stdout, silent
    answers[f"/datasets/org/name/resolve/{COMMIT}/train.csv"] = (401, {"X-Error-Code": "RepoNotFound"}, b"")
    private = from_hub(path, url)
    assert private.stdout.startswith("DataError") and "HF_TOKEN" in private.stdout, private


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"revision": "main"}, "revision: 'main'"),
        ({"revision": COMMIT[:12]}, "revision"),
        ({"repo": "name"}, "repo: 'name'"),
        ({"extra": "1"}, "extra"),
    ],
)
def test_pointers_are_checked(tmp_path, changes, words):
    with pytest.raises(DataError) as caught:
        read_pointer(pointer(tmp_path, **changes), "rows.hub.json")
    assert words in str(caught.value) and "40-digit commit" in str(caught.value)


def test_pointer_that_is_not_json(tmp_path):
    (tmp_path / "a.hub.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not JSON"):
        read_pointer(tmp_path / "a.hub.json", "a.hub.json")
