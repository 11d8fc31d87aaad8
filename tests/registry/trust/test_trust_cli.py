"""key, sign, verify, sbom and forget at the command line: what they print and exit with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from slm_registry.cli import main

from tests.registry.trusting import make_pair, write_policy


class Cli:
    """Runs commands against one folder store."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self.capture = capture

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self.capture.readouterr()
        assert main(list(arguments)) == code
        found = self.capture.readouterr()
        assert found.err.count("\n") == (1 if code else 0)
        return found.out + found.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        self.capture.readouterr()
        assert main([*arguments, "--json"]) == code
        return json.loads(self.capture.readouterr().out)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("SLM_REGISTRY_URL", str(tmp_path / "store"))
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(tmp_path / "cache"))
    for name in ("KEY", "POLICY", "KEY_PASSPHRASE"):
        monkeypatch.delenv(f"SLM_REGISTRY_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return Cli(capsys)


def test_keys(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("key", "new", "ci") == "ci.pem (keep it to yourself)\nci.pub\n"
    shown = cli.json("key", "show", "ci.pub")
    assert shown == cli.json("key", "show", "ci.pem")
    assert Path("ci.pub").read_text() == shown["public"] + "\n"
    assert cli("key", "show", "ci.pub") == f"{shown['public']}\nid {shown['id']}\n"
    # No store is needed, and none is asked for.
    monkeypatch.delenv("SLM_REGISTRY_URL")
    Path("keys").mkdir()
    made = cli.json("key", "new", "release", "--into", "keys")
    assert (made["private"], made["name"]) == ("keys/release.pem", "release")
    assert "exists already" in cli("key", "new", "ci", code=2)
    assert "not allowed" in cli("key", "new", "../ci", code=2)
    assert "cannot write" in cli("key", "new", "ci", "--into", "nowhere", code=7)
    cli("key", code=2)


def test_publishing_what_is_there_already_signs_it(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    ci = make_pair(tmp_path, "ci")
    cli("publish", str(bundle), "m")
    assert "there is none" in cli("verify", "m", "--public", "ci.pub", code=8)
    assert cli.json("publish", str(bundle), "m", "--key", str(ci.private))["created"] is False
    assert "signed by ci" in cli("verify", "m", "--public", "ci.pub")


def test_a_publish_does_not_sign_what_another_wrote(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    """The same files under a lineage that this publisher does not know: its key vouches for nothing of that."""
    ci = make_pair(tmp_path, "ci")
    (tmp_path / "forged.json").write_text('{"git_commit": "forged"}')
    cli("publish", str(bundle), "m", "--version", "9.9.9", "--lineage", "forged.json")
    publish = ("publish", str(bundle), "m", "--key", str(ci.private))
    assert "another lineage" in cli(*publish, code=8)
    assert "there is none" in cli("verify", "m@9.9.9", "--public", "ci.pub", code=8)
    assert cli.json(*publish, "--version", "10.0.0")["created"] is True
    # What this key has signed before is no obstacle, whatever the lineage is today.
    assert cli.json(*publish, "--lineage", "forged.json")["version"] == "10.0.0"


def test_sign_and_verify(cli: Cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ci, release = (make_pair(tmp_path, name) for name in ("ci", "release"))
    cli("publish", str(bundle), "m", "--key", str(ci.private))
    assert cli("verify", "m", "--public", "ci.pub").endswith("\nsigned by ci\n")
    assert "nothing to verify by" in cli("verify", "m", code=2)
    assert "--save" in cli("verify", "m", "--save", "x", code=2)
    write_policy(tmp_path / "policy.toml", [ci, release], 'models = ["*"]\nkeys = ["release"]')
    for command in (("verify", "m"), ("pull", "m"), ("predict", "m", "hello")):
        assert "wants signatures by release" in cli(*command, "--policy", "policy.toml", code=8)
    assert cli.json("verify", "m", "--policy", "policy.toml", code=8)["error"]["type"] == "PolicyError"
    assert "no key is named" in cli("sign", "m", code=2)
    monkeypatch.setenv("SLM_REGISTRY_KEY", str(release.private))
    assert cli("sign", "m@1.0.0", "--expires", "2999-01-01").startswith("signed m@1.0.0 sha256:")
    assert cli.json("sign", "m@1.0.0")["created"] is False
    assert "not a day" in cli("sign", "m", "--expires", "soon", code=2)
    found = cli.json("verify", "m", "--policy", "policy.toml", "--public", "ci.pub")
    assert [key["name"] for key in found["signed_by"]] == ["release", "ci"]
    monkeypatch.setenv("SLM_REGISTRY_POLICY", str(tmp_path / "policy.toml"))
    assert cli("predict", "m", "hello").startswith("other")
    write_policy(tmp_path / "policy.toml", [], 'models = ["m"]\nsignatures = 0')
    assert "signed by nobody" in cli("verify", "m")
    (tmp_path / "policy.toml").write_text("format = 3")
    assert "format" in cli("predict", "m", "hello", code=2)


def test_a_policy_of_aliases_alone(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    ci = make_pair(tmp_path, "ci")
    cli("publish", str(bundle), "m", "--alias", "production", "--key", str(ci.private))
    write_policy(tmp_path / "policy.toml", [ci], 'models = ["*"]\naliases = ["production"]\nkeys = ["ci"]')
    assert cli.json("pull", "m@production", "--policy", "policy.toml")["version"] == "1.0.0"
    assert cli("predict", "m", "hello", "--policy", "policy.toml").startswith("other")
    assert "no rule" in cli("pull", "m@1.0.0", "--policy", "policy.toml", code=8)


def test_model_signing_options(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    ci = make_pair(tmp_path, "ci")
    cli("publish", str(bundle), "m")
    assert "no such field" in cli(
        "sign", "m", "--model-signing", "--key", str(ci.private), "--expires", "2030-01-01", code=2
    )
    assert "one --public" in cli("verify", "m", "--model-signing", code=2)


def test_sbom(cli: Cli, bundle: Path) -> None:
    (bundle / "lineage.json").write_text('{"metrics": {"accuracy": 0.9}}')
    cli("publish", str(bundle), "m", "--alias", "candidate")
    value = cli.json("sbom", "m@candidate")
    assert json.loads(cli("sbom", "m")) == value
    assert value["metadata"]["component"]["version"] == "1.0.0"
    assert {item["name"] for item in value["components"]} == {path.name for path in bundle.iterdir()}
    cli("sbom", "n", code=3)


def test_a_store_set_back(cli: Cli, bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    cli("publish", str(bundle), "m")
    cli("publish", str(other_bundle), "m")
    cli("list")
    log = tmp_path / "store" / "models" / "m"
    (log / "log" / "000000000002.json").unlink()
    (log / "head.json").unlink()
    (log / "index.json").unlink()
    assert "run `slm-registry forget m`" in cli("predict", "m", "hello", code=5)
    assert cli("forget", "m") == "forgotten: m\n"
    assert cli("forget", "m") == "nothing was remembered of m\n"
    assert cli("predict", "m", "hello").startswith("other")
