"""Promote, roll back, yank, deprecate: what they allow, what they leave in the log, what a reader then gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slm_registry import ConflictError, CorruptError, NotFoundError, PolicyError, Registry, UsageError
from slm_registry.plumbing.hashing import digest_of
from slm_registry.stores.base import Store
from slm_registry.transfer.blobs import blob_key

from tests.registry.command_line import Cli
from tests.registry.recording import RecordingStore

POLICY = "accuracy: '>= 0.9'\n"


@pytest.fixture
def three(registry: Registry, bundle: Path) -> Registry:
    """A registry with 1.0.0, 1.1.0 and 1.2.0 of one model, each with metrics."""
    for minor in range(3):
        (bundle / "metrics.json").write_text(json.dumps({"model": {"accuracy": 0.9 + minor / 100}}))
        registry.publish(bundle, "m", version=f"1.{minor}.0", lineage={})
    return registry


def last(registry: Registry) -> Any:
    return registry.log("m")[-1]


def test_a_promotion_carries_its_evidence(three: Registry) -> None:
    done = three.promote("m", "production", "1.1.0", policy=POLICY, expected=None, reason="gate 7")
    assert (done.version, done.previous, done.moved) == ("1.1.0", None, True)
    entry = last(three)
    files = {file.path: file.digest for file in three.show("m@1.1.0").files}
    assert (entry.op, entry.reason, entry.actor) == ("promote", "gate 7", "alice")
    assert entry.details["evaluation"] == files["metrics.json"]
    assert entry.details["policy"] == digest_of(POLICY.encode())
    assert entry.blobs() == (digest_of(POLICY.encode()),)
    assert three.store.get(blob_key(entry.details["policy"]), 100) == POLICY.encode()
    assert three.store.children("leases") == []
    assert three.resolve("m").version == "1.1.0"


def test_the_same_promotion_again_writes_nothing_another_one_does(three: Registry) -> None:
    three.alias("m", "production", "1.1.0")
    assert three.promote("m", "production", "1.1.0", policy=POLICY).moved
    count = len(three.log("m"))
    assert not three.promote("m", "production", "1.1.0", policy=POLICY).moved
    assert len(three.log("m")) == count
    assert three.promote("m", "production", "1.1.0", policy="stricter").moved


def test_what_a_promotion_refuses(three: Registry) -> None:
    count = len(three.log("m"))
    stranger = three.show("m@1.0.0").files
    foreign = next(file.digest for file in stranger if file.path == "metrics.json")
    refused: list[tuple[type[Exception], dict[str, Any]]] = [
        (PolicyError, {"evaluation": "evaluation.json"}),
        (PolicyError, {"evaluation": foreign}),
        (PolicyError, {"policy_digest": "sha256:" + "0" * 64}),
        (ConflictError, {"expected": "1.0.0"}),
        (NotFoundError, {"version": "1.5.0"}),
        (UsageError, {"policy": ""}),
        (UsageError, {"policy": "x" * (1 << 21)}),
    ]
    for error, options in refused:
        asked = {"version": "1.1.0", "policy": POLICY, **options}
        with pytest.raises(error):
            three.promote("m", "production", asked.pop("version"), **asked)
    assert len(three.log("m")) == count
    assert three.promote(
        "m", "production", "1.0.0", policy=POLICY, evaluation=foreign, policy_digest=digest_of(POLICY.encode())
    ).moved


class SpoilsAtCommit(RecordingStore):
    """Runs an action once, just before the first entry after 1.2.0 would be read: between check and commit."""

    def __init__(self, inner: Store, action: Callable[[], object]) -> None:
        super().__init__(inner)
        self.action: Callable[[], object] | None = action

    def create(self, key: str, data: bytes) -> bool:
        if "/log/" in key and self.action is not None:
            action, self.action = self.action, None
            action()
        return super().create(key, data)


def test_a_promotion_is_checked_again_where_another_writer_was_first(three: Registry) -> None:
    def spoil() -> None:
        three.yank("m", "1.1.0", reason="bad labels")

    racing = Registry(SpoilsAtCommit(three.store, spoil), actor="bob")
    with pytest.raises(ConflictError, match=r"m@1\.1\.0 was yanked by alice at .* \(bad labels\)"):
        racing.promote("m", "production", "1.1.0", policy=POLICY)
    assert last(three).op == "yank"


def test_a_policy_that_vanished_is_found_at_the_commit(three: Registry) -> None:
    def spoil() -> None:
        three.store.delete(blob_key(digest_of(POLICY.encode())))
        three.deprecate("m", "1.0.0", reason="to win the race")

    racing = Registry(SpoilsAtCommit(three.store, spoil), actor="bob")
    with pytest.raises(CorruptError, match="policy of m@production"):
        racing.promote("m", "production", "1.1.0", policy=POLICY)
    assert last(three).op == "deprecate"


def test_rollback_goes_back_step_by_step_and_never_forward(three: Registry) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        three.alias("m", "production", version)
    done = three.rollback("m", "production", expected="1.2.0", reason="latency")
    assert (done.version, done.previous) == ("1.1.0", "1.2.0")
    entry = last(three)
    assert (entry.op, entry.reason, entry.details["expected"]) == ("alias", "latency", "1.2.0")
    assert three.rollback("m", "production").version == "1.0.0"
    assert last(three).reason == "rollback"
    with pytest.raises(NotFoundError, match="never was at another version"):
        three.rollback("m", "production")
    with pytest.raises(NotFoundError, match="'production'"):
        three.rollback("m", "producton")


def test_rollback_passes_over_what_was_yanked(three: Registry) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        three.alias("m", "production", version)
    three.yank("m", "1.1.0")
    assert three.rollback("m", "production").version == "1.0.0"


def test_rollback_does_not_take_back_the_move_of_somebody_else(three: Registry) -> None:
    three.alias("m", "production", "1.0.0")
    three.alias("m", "production", "1.1.0")
    with pytest.raises(ConflictError, match=r"is at 1\.1\.0, moved by alice"):
        three.rollback("m", "production", expected="1.2.0")

    def spoil() -> None:
        Registry(three.store, actor="carol").alias("m", "production", "1.2.0", reason="fix")

    with pytest.raises(ConflictError, match=r"is at 1\.2\.0, moved by carol at .* \(fix\)"):
        Registry(SpoilsAtCommit(three.store, spoil), actor="bob").rollback("m", "production")
    assert three.resolve("m").version == "1.2.0"


def test_rollback_takes_few_requests_in_a_long_log(three: Registry) -> None:
    for number in range(40):
        three.alias("m", "production", f"1.{number % 2}.0")
    three.alias("m", "production", "1.2.0")
    recorded = RecordingStore(three.store)
    Registry(recorded).rollback("m", "production")
    assert len(recorded.calls) < 12


def test_a_yanked_version_is_chosen_by_nothing(
    three: Registry, caplog: pytest.LogCaptureFixture, other_bundle: Path
) -> None:
    assert three.yank("m", "1.2.0", reason="leaks labels")
    assert not three.yank("m", "1.2.0")
    for ref in ("m", "m@latest", "m@>=1"):
        assert three.resolve(ref).version == "1.1.0"
    with pytest.raises(ConflictError, match=r"1\.2\.0 was yanked by alice"):
        three.alias("m", "production", "1.2.0")
    assert next((row.version, row.status) for row in three.list("m")) == ("1.2.0", "yanked")
    assert three.show("m@1.2.0").status == "yanked"
    for ref in ("m@1.2.0", f"m@{three.show('m@1.2.0').digest}"):
        caplog.clear()
        assert three.load(ref).predict(["hello"])[0].label == "other"
        assert "m@1.2.0 is yanked, by alice at" in caplog.text
        assert "leaks labels" in caplog.text
    # A number is never given twice.
    assert three.publish(other_bundle, "m", lineage={}).version == "1.2.1"
    assert three.unyank("m", "1.2.0", reason="was another one")
    assert not three.unyank("m", "1.2.0")
    assert three.alias("m", "production", "1.2.0")


def test_what_an_alias_points_at_is_not_yanked(three: Registry) -> None:
    three.alias("m", "production", "1.1.0")
    with pytest.raises(ConflictError, match="rollback m production"):
        three.yank("m", "1.1.0")
    with pytest.raises(NotFoundError, match=r"1\.1\.0"):
        three.yank("m", "1.1.1")

    def spoil() -> None:
        three.alias("m", "candidate", "1.2.0")

    with pytest.raises(ConflictError, match="candidate"):
        Registry(SpoilsAtCommit(three.store, spoil)).yank("m", "1.2.0")


def test_all_versions_yanked(three: Registry) -> None:
    for row in three.list("m"):
        three.yank("m", row.version)
    with pytest.raises(NotFoundError, match="every version is yanked"):
        three.resolve("m")
    assert three.models() == ("m",)
    assert three.resolve("m@1.0.0").version == "1.0.0"


def test_a_deprecated_version_warns_by_alias_too(three: Registry, caplog: pytest.LogCaptureFixture) -> None:
    three.alias("m", "production", "1.1.0")
    three.pull("m@production")
    assert caplog.text.count("deprecated") == 0
    assert three.deprecate("m", "1.1.0", reason="use 1.2.0")
    assert not three.deprecate("m", "1.1.0", reason="again")
    three.pull("m@production")
    assert "m@1.1.0 is deprecated, by alice at" in caplog.text
    assert "use 1.2.0" in caplog.text
    assert three.undeprecate("m", "1.1.0")
    caplog.clear()
    three.pull("m@production")
    assert "deprecated" not in caplog.text


def test_on_the_command_line(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (bundle / "metrics.json").write_text('{"accuracy": 0.9}')
    cli("publish", str(bundle), "m", "--version", "1.0.0", "--alias", "production")
    cli("publish", str(bundle), "m", "--version", "1.1.0")
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    promote = ("promote", "m@1.1.0", "production", "--gate", str(policy))
    cli(*promote, "--expected", "none", code=4)
    cli(*promote, "--evaluation", "nothing.json", code=8)
    cli(*promote[:-1], str(tmp_path / "missing"), code=2)
    assert cli(*promote, "--expected", "1.0.0") == "m@production 1.0.0 -> 1.1.0\n"
    assert cli.json(*promote)["moved"] is False
    cli("yank", "m@1.1.0", "--reason", "bad", code=4)
    assert cli("demote", "m", "production", "--reason", "bad") == "m@production 1.1.0 -> 1.0.0\n"
    assert cli("yank", "m@1.1.0", "--reason", "bad") == "m@1.1.0: yank done\n"
    assert cli.json("unyank", "m@1.1.0")["changed"] is True
    assert cli.json("unyank", "m@1.1.0")["changed"] is False
    cli("deprecate", "m@1.1.0", code=2)
    cli("deprecate", "m@1.1.0", "--reason", "old")
    cli("undeprecate", "m@1.1.0")
    for ref in ("m", "m@production", "m@>=1"):
        cli("yank", ref, code=2)
        assert "name one exact version" in cli.error
    lines = cli("log", "m").splitlines()
    assert "promote production 1.0.0 -> 1.1.0 (evaluation " in lines[4]
    assert lines[5].endswith("alias production 1.1.0 -> 1.0.0" + lines[5].partition("-> 1.0.0")[2])
    assert [entry["op"] for entry in cli.json("log", "m", "--last", "3")] == ["unyank", "deprecate", "undeprecate"]
    cli("log", "m", "--last", "0", code=2)
