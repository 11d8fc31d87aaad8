"""What happens to builds reaches a webhook: a real server's automations, a real receiver."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from itertools import chain
from typing import Any

import pytest
from prefect import Flow, State
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

import flows
from flows.alerts import ALERTS, set_up
from flows.automations import FLOWS
from flows.build import PUBLISHED
from flows.errors import FlowError
from flows.standing import UP_TO_DATE
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


def every_flow() -> Iterator[Flow[..., Any]]:
    for module in pkgutil.iter_modules(flows.__path__, "flows."):
        if not module.name.endswith("__main__"):
            yield from (found for found in vars(import_module(module.name)).values() if isinstance(found, Flow))


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


def test_every_flow_and_every_alert_is_told(told: tuple[str, list[str]]) -> None:
    """The states are given to runs by hand here: that flows end in them is tested where they are."""
    address, texts = told
    CustomWebhookNotificationBlock(name="team", url=address, json_data={"text": "{{subject}}"}).save(
        "team", overwrite=True
    )
    ours = {found.name: found for found in every_flow()}
    assert set(ours) == set(FLOWS)
    expected = []
    with get_client(sync_client=True) as client:
        set_up(client, "custom-webhook/team")
        for flow in ours.values():
            for state in (*chain(*ALERTS.values()), UP_TO_DATE):
                run = client.create_flow_run(flow, name=flow.name)
                kind = StateType.COMPLETED if state in (PUBLISHED, UP_TO_DATE) else StateType.FAILED
                client.set_flow_run_state(run.id, State(type=kind, name=state), force=True)
                expected += [f"{flow.name}: {state}"] if state != UP_TO_DATE else []
    wait_for(lambda: len(texts) >= len(expected), 60)
    assert sorted(texts) == sorted(expected)


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
