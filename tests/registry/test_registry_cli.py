"""The command line: what it prints, in words and as JSON, and what it exits with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from slm_registry.cli import main

from tests.registry.command_line import Cli
from tests.registry.helpers import REPOSITORY


def test_from_publish_to_predict(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (bundle / "lineage.json").write_text('{"git_commit": "abc"}')
    published = cli.json("publish", str(bundle), "m", "--alias", "candidate", "--reason", "nightly")
    assert (published["version"], published["created"]) == ("1.0.0", True)
    assert cli("publish", str(bundle), "m").startswith("already there: m@1.0.0 sha256:")

    (row,) = cli.json("list")
    assert (row["model"], row["aliases"], row["actor"]) == ("m", ["candidate"], "bob")
    assert [line.split()[0] for line in cli("list").splitlines()] == ["model", "m"]

    shown = cli.json("show", "m@candidate")
    assert shown["lineage"] == {"git_commit": "abc"}
    assert "config.json" in cli("show", "m")

    assert cli("alias", "m", "production", "1.0.0", "--expected", "none") == "m@production -> 1.0.0\n"
    assert cli.json("alias", "m", "production", "1.0.0")["moved"] is False

    path = cli("pull", "m", "--into", str(tmp_path / "pulled")).strip()
    assert json.loads((Path(path) / "config.json").read_text())
    assert Path(cli.json("pull", "m@1.0.0")["path"]).is_dir()

    predictions = cli.json("predict", "m", "where is my parcel", "hello")
    assert [item["label"] for item in predictions] == ["delivery", "other"]
    assert cli("predict", "m", "money back").split("\t")[0] == "refund"

    assert [entry["op"] for entry in cli.json("log", "m")] == ["publish", "alias", "alias"]
    assert "alias production (new) -> 1.0.0" in cli("log", "m")
    assert "nightly" in cli("log", "m")


def test_lineage_from_a_file(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "lineage.json").write_text('{"data": "sha256:0"}')
    cli("publish", str(bundle), "m", "--version", "3.0.0", "--lineage", str(tmp_path / "lineage.json"))
    assert cli.json("show", "m@3.0.0")["lineage"] == {"data": "sha256:0"}
    (tmp_path / "lineage.json").write_text("[]")
    for file in (tmp_path / "lineage.json", tmp_path / "missing.json"):
        assert "lineage" in str(cli.json("publish", str(bundle), "m", "--lineage", str(file), code=2))


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        (b"predict", b"m", b"\xff bad"),
        (b"publish", b"\xff", b"m"),
        (b"publish", b"bundle", b"\xff"),
        (b"publish", b"bundle", b"m", b"--reason", b"\xff"),
        (b"publish", b"bundle", b"m", b"--lineage", b"\xff"),
        (b"\xff",),
    ],
)
def test_arguments_that_are_no_text(
    cli: Cli, bundle: Path, tmp_path: Path, arguments: tuple[bytes, ...], as_json: bool
) -> None:
    cli("publish", str(bundle), "m")
    command = [sys.executable, "-m", "slm_registry", *arguments, "--store", cli.store, *(["--json"] if as_json else [])]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "registry")}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert not as_json or json.loads(run.stdout)["error"]["exit_code"] == 2


def test_a_folder_whose_name_is_no_text(cli: Cli, bundle: Path) -> None:
    named = os.fsdecode(b"\xff")
    bundle = bundle.rename(bundle.with_name(named))
    assert cli.json("publish", str(bundle), "m")["created"]
    into = bundle.parent / f"{named}2"
    assert cli.json("pull", "m", "--into", str(into))["path"] == str(into)
    assert cli("pull", "m", "--into", f"{into}2").endswith("22\n")


def test_options_stand_anywhere(cli: Cli, bundle: Path) -> None:
    cli("publish", str(bundle), "m")
    assert len(cli.json("predict", "m", "--threads", "1", "hello", "money back")) == 2
    assert len(cli.json("predict", "m", "hello", "--threads", "1", "money back")) == 2
    assert len(cli.json("list", "--store", cli.store, "m")) == 1
    for command in (("predict", "m", "hello", "--fast"), ("list", "m", "--json", "n"), ("show", "m", "--json", "n")):
        cli(*command, code=2)
        assert "unrecognized arguments" in cli.error


def test_texts_from_standard_input(cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("publish", str(bundle), "m")
    monkeypatch.setattr(sys, "stdin", io.StringIO("my parcel\n\nmoney back\n"))
    assert [line.split("\t")[0] for line in cli("predict", "m").splitlines()] == ["delivery", "refund"]


def test_exit_codes(cli: Cli, bundle: Path, other_bundle: Path) -> None:
    assert cli.json("list") == []
    failure = cli.json("load", "m", code=2)["error"]
    assert failure["type"] == "UsageError"
    cli("publish", str(bundle), "m", "--version", "1.0.0")
    (other_bundle / "model.pkl").write_bytes(b"x")
    expected = {
        ("show", "M"): (2, "UsageError"),
        ("show", "m@1.0"): (2, "UsageError"),
        ("alias", "m", "v1", "1.0.0"): (2, "UsageError"),
        ("publish", str(bundle / "nothing"), "m"): (2, "UsageError"),
        ("predict", "m", "--threads", "0", "x"): (2, "UsageError"),
        ("predict", "m", "--threads", "many", "x"): (2, "UsageError"),
        ("show", "mm"): (3, "NotFoundError"),
        ("predict", "m@candidate", "x"): (3, "NotFoundError"),
        ("alias", "m", "production", "1.0.0", "--expected", "1.0.0"): (4, "ConflictError"),
        ("publish", str(other_bundle), "m"): (6, "RefusedError"),
    }
    for arguments, (code, kind) in expected.items():
        failure = cli.json(*arguments, code=code)["error"]
        assert (failure["type"], failure["exit_code"]) == (kind, code)
        assert failure["message"] in cli.error
    (other_bundle / "model.pkl").unlink()
    cli("publish", str(other_bundle), "m", "--version", "1.0.0", code=4)


def test_a_corrupt_store(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(tmp_path / "cache"))
    cli = Cli(str(tmp_path / "store"), capsys)
    cli("publish", str(bundle), "m")
    for blob in (tmp_path / "store" / "blobs" / "sha256").iterdir():
        blob.write_bytes(b"x")
    assert "manifest of m@1.0.0" in cli.json("predict", "m", "x", code=5)["error"]["message"]


def test_no_store_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SLM_REGISTRY_URL", raising=False)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "slm-registry: no store is named; give --store URL or set SLM_REGISTRY_URL\n"


def test_a_store_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLM_REGISTRY_URL", str(tmp_path / "store"))
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not (tmp_path / "store").exists()


def test_control_characters_do_not_reach_the_terminal(cli: Cli, bundle: Path) -> None:
    cli("publish", str(bundle), "m", "--reason", "\x1b[31mred\nline")
    assert "\x1b" not in cli("log", "m")
    assert len(cli("log", "m").splitlines()) == 2


EVIL = "\x1b]0;pwned\x07 \x9b31m \u202egnp"


def harmless(text: str) -> bool:
    return "pwned" in text and text.replace("\n", "").replace("\t", "").isprintable()


def test_what_others_wrote_does_not_reach_the_terminal(
    cli: Cli, bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = json.loads((bundle / "config.json").read_text())
    edit["id2label"]["0"] = EVIL
    (bundle / "config.json").write_text(json.dumps(edit))
    (bundle / "lineage.json").write_text(json.dumps({"git_commit": EVIL}))
    monkeypatch.setenv("SLM_REGISTRY_ACTOR", f"bob {EVIL}")
    cli("publish", str(bundle), "m", "--reason", f"first{EVIL}\nversion  9.9.9")
    shown = cli("show", "m")
    assert harmless(shown)
    assert "git_commit" in shown
    assert [line for line in shown.splitlines() if line.startswith("version")] == ["version  1.0.0"]
    for command in (
        ("list", "m"),
        ("search", "--label", EVIL),
        ("predict", "m", f"my parcel{EVIL}\ttab\nline"),
        ("sbom", "m"),
    ):
        assert harmless(cli(*command)), command
    assert len(cli("predict", "m", "my parcel\nline").splitlines()) == 1
    assert cli("predict", "m", "wide\u3000space").endswith("wide\u3000space\n")
    assert json.loads(cli("sbom", "m")) == cli.json("sbom", "m")
    assert cli.json("show", "m")["lineage"]["git_commit"] == EVIL
    cli("publish", str(bundle / EVIL), "m", code=2)
    assert harmless(cli.error)
    cli("show", "m", EVIL, code=2)
    assert harmless(cli.error)
    cli("deprecate", "m@1.0.0", "--reason", EVIL)
    caplog.clear()
    cli("pull", "m@1.0.0")
    assert harmless(caplog.text)
    assert "is deprecated" in caplog.text


def test_without_a_store_there_is_no_traceback(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "slm_registry", "predict", "m", "x", "--store", "s3://bucket/x"],
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": str(REPOSITORY / "registry"),
            "HOME": str(tmp_path),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        },
        check=False,
    )
    assert run.returncode == 7
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert "AWS_ACCESS_KEY_ID" in run.stderr


def test_a_user_without_a_home(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("SLM_REGISTRY_CACHE", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for command in (["list", "--store", "store"], ["cache", "size"]):
        assert main(command) == 2
        assert "set SLM_REGISTRY_CACHE" in capsys.readouterr().err
    monkeypatch.setenv("SLM_REGISTRY_CACHE", "cache")
    assert main(["list", "--store", "~/store"]) == 2
    for variable in ("SLM_REGISTRY_KEY", "SLM_REGISTRY_POLICY"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "~/file")
            assert main(["publish", str(bundle), "m", "--store", "store"]) == 2


def test_a_reader_that_stops_early(bundle: Path, tmp_path: Path) -> None:
    script = (
        f"{sys.executable} -m slm_registry publish {bundle} m --store {tmp_path}/s >/dev/null && "
        f"{sys.executable} -m slm_registry show m --json --store {tmp_path}/s | true; echo ${{PIPESTATUS[0]}}"
    )
    environment = {"PYTHONPATH": str(REPOSITORY / "registry"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (run.stdout, run.stderr) == ("0\n", "")
