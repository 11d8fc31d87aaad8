"""What happens to builds reaches a webhook: a real server's automations, a real receiver."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client

from flows.alerts import ALERTS, set_up
from flows.errors import FlowError
from tests.flows.toy import REPOSITORY, Toy, environment, run, wait_for

pytestmark = pytest.mark.usefixtures("api")


@pytest.fixture
def told() -> Iterator[tuple[str, list[str]]]:
    """An address, and the texts that were posted there."""
    texts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", texts
    with get_client(sync_client=True) as client:
        for old in client.read_automations():
            client.delete_automation(old.id)
    server.shutdown()


def test_published_failed_and_gate_failed_are_told_and_nothing_else(built: Toy, told: tuple[str, list[str]]) -> None:
    address, texts = told
    block = CustomWebhookNotificationBlock(name="team", url=address, json_data={"text": "{{subject}} | {{body}}"})
    block.save("team", overwrite=True)
    with get_client(sync_client=True) as client:
        for _ in range(2):
            assert set_up(client, "custom-webhook/team") == [f"slm-factory: {alert}" for alert in ALERTS]
        assert len(client.read_automations_by_name("slm-factory: published")) == 1
    assert built.flows("build", "alpha", "--publish", "store")[0] == 0
    again = "from flows.build import build; print(build('alpha', publish='store', return_state=True).name)"
    assert "Up to date" in run([sys.executable, "-c", again], built.folder), "not told"
    built.change("alpha", "gate", "max_bytes", 3)
    built.behave("gate", "fail GateError: alpha: 5 MB are more than 3")
    assert built.flows("build", "alpha")[0] == 5
    built.behave("gate", "fail DataError: alpha: no rows")
    assert built.flows("build", "alpha")[0] == 3
    wait_for(lambda: len(texts) >= 3, 60)
    subjects = sorted(text.partition(" | ")[0] for text in texts)
    assert subjects == ["build · alpha: Failed", "build · alpha: Gate failed", "build · alpha: Published"]
    assert any("alpha 1.0.0 in store as candidate" in text for text in texts)
    assert any("5 MB are more than 3" in text for text in texts)


def test_a_block_that_there_is_not_is_named() -> None:
    with get_client(sync_client=True) as client, pytest.raises(FlowError, match="slack-webhook/nobody: no such block"):
        set_up(client, "slack-webhook/nobody")


@pytest.mark.parametrize(
    ("url", "block", "code", "said"),
    [
        ("", "slack-webhook/team", 2, "no server is named"),
        ("http://127.0.0.1:1/api", "slack-webhook/team", 7, "does not do it"),
        (None, "slack-webhook", 1, "not TYPE/NAME"),
    ],
)
def test_without_a_server_or_a_name_one_line_says_so(url: str | None, block: str, code: int, said: str) -> None:
    env = environment() | ({"PREFECT_API_URL": url} if url is not None else {}) | {"PREFECT_CLIENT_MAX_RETRIES": "0"}
    command = [sys.executable, "-m", "flows.alerts", block]
    done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert said in done.stderr
