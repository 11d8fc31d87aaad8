"""Publish, resolve, list, show, pull and alias, against every store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from slm_registry import ConflictError, NotFoundError, RefusedError, Registry, UsageError
from slm_registry.stores.base import Store

from tests.registry.helpers import LABELS, make_bundle
from tests.registry.recording import RecordingStore

LINEAGE = {"git_commit": "0" * 40, "metrics": {"accuracy": 0.93}, "recipe": {"temperature": 2.0}}


def test_publish_load_predict(registry: Registry, bundle: Path) -> None:
    done = registry.publish(bundle, "m", lineage=LINEAGE, alias="candidate", reason="nightly")
    assert (done.version, done.created, done.alias) == ("1.0.0", True, "candidate")
    (prediction,) = registry.load("m@candidate").predict(["Where is my parcel"])
    assert prediction.label == "delivery"
    assert 0.8 < prediction.probability < 1


def test_the_same_files_are_published_once(registry: Registry, bundle: Path, other_bundle: Path) -> None:
    first = registry.publish(bundle, "m", lineage=LINEAGE)
    again = registry.publish(bundle, "m", lineage={"git_commit": "another"})
    assert (again.version, again.digest, again.created) == (first.version, first.digest, False)
    assert registry.publish(other_bundle, "m", lineage={}).version == "1.0.1"
    # Back to the first files: they are not the newest version's, so it is a version of its own.
    assert registry.publish(bundle, "m", lineage={}).version == "1.0.2"
    assert [entry.op for entry in registry.log("m")] == ["publish"] * 3


def test_a_version_never_changes(registry: Registry, bundle: Path, other_bundle: Path) -> None:
    first = registry.publish(bundle, "m", version="2.1.0", lineage=LINEAGE)
    again = registry.publish(bundle, "m", version="2.1.0", lineage=LINEAGE)
    assert (again.digest, again.created) == (first.digest, False)
    for folder, lineage in ((other_bundle, LINEAGE), (bundle, {})):
        with pytest.raises(ConflictError, match=r"m@2\.1\.0 holds other content: published by alice"):
            registry.publish(folder, "m", version="2.1.0", lineage=lineage)
    assert registry.show("m@2.1.0").digest == first.digest


def test_versions_are_ordered_as_numbers(registry: Registry, bundle: Path, other_bundle: Path) -> None:
    for version in ("9.0.0", "10.0.0", "1.0.0"):
        registry.publish(bundle, "m", version=version, lineage={})
    assert [row.version for row in registry.list("m")] == ["10.0.0", "9.0.0", "1.0.0"]
    assert registry.resolve("m").version == "10.0.0"
    assert registry.publish(other_bundle, "m", lineage={}).version == "10.0.1"


def test_references(registry: Registry, bundle: Path, other_bundle: Path) -> None:
    first = registry.publish(bundle, "m", lineage={}, alias="candidate")
    second = registry.publish(other_bundle, "m", lineage={})
    assert registry.resolve("m").version == second.version
    assert registry.resolve("m@candidate").version == first.version
    assert registry.resolve(f"m@{second.digest}").version == second.version
    registry.alias("m", "production", "1.0.0")
    assert registry.resolve("m").version == first.version


def test_aliases_move_and_compare(registry: Registry, bundle: Path, other_bundle: Path) -> None:
    registry.publish(bundle, "m", lineage={})
    registry.publish(other_bundle, "m", lineage={})
    assert registry.alias("m", "production", "1.0.0", expected=None, reason="first")
    assert not registry.alias("m", "production", "1.0.0")
    with pytest.raises(ConflictError, match=r"is at 1\.0\.0, moved by alice at .* \(first\); it was expected not to"):
        registry.alias("m", "production", "1.0.1", expected=None)
    assert registry.alias("m", "production", "1.0.1", expected="1.0.0")
    with pytest.raises(ConflictError, match=r"expected at 1\.0\.0"):
        registry.alias("m", "production", "1.0.0", expected="1.0.0")
    moves = [entry.details for entry in registry.log("m") if entry.op == "alias"]
    assert [(move["expected"], move["version"]) for move in moves] == [(None, "1.0.0"), ("1.0.0", "1.0.1")]


def test_an_alias_that_is_there_already_costs_no_entry(registry: Registry, bundle: Path) -> None:
    for _ in range(3):
        registry.publish(bundle, "m", lineage={}, alias="candidate")
    assert [entry.op for entry in registry.log("m")] == ["publish", "alias"]


def test_listing_and_showing(registry: Registry, bundle: Path) -> None:
    assert registry.models() == ()
    assert registry.list() == ()
    registry.publish(bundle, "b", lineage=LINEAGE, alias="candidate", reason="why not")
    registry.publish(bundle, "a", lineage={})
    assert registry.models() == ("a", "b")
    assert [(row.model, row.version, row.aliases) for row in registry.list()] == [
        ("a", "1.0.0", ()),
        ("b", "1.0.0", ("candidate",)),
    ]
    details = registry.show("b@candidate")
    assert details.lineage == LINEAGE
    assert (details.actor, details.reason) == ("alice", "why not")
    assert {file.path for file in details.files} == {path.name for path in bundle.iterdir()}
    assert details.size == sum(path.stat().st_size for path in bundle.iterdir())


def test_notes_beside_the_models_are_no_models(folder_registry: Registry, bundle: Path, tmp_path: Path) -> None:
    folder_registry.publish(bundle, "m", lineage={})
    models = tmp_path / "store" / "models"
    for name in ("readme.md", "Notes (old).txt"):
        (models / name).write_text("x")
    (models / "empty").mkdir()
    assert folder_registry.models() == ("m",)
    with pytest.raises(NotFoundError):
        folder_registry.load("readme.md")


def test_what_is_not_there_is_named_with_what_is_near(registry: Registry, bundle: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no model"):
        registry.load("m")
    registry.publish(bundle, "support-intents", version="1.2.0", lineage={}, alias="candidate")
    for ref, hint in {
        "suport-intents": "'support-intents'",
        "support-intents@candidat": "'candidate'",
        "support-intents@1.2.1": r"'1\.2\.0'",
        "support-intents@sha256:" + "0" * 64: "digest",
    }.items():
        with pytest.raises(NotFoundError, match=hint):
            registry.load(ref)
    with pytest.raises(NotFoundError, match="support-intents"):
        registry.alias("suport-intents", "candidate", "1.2.0")
    with pytest.raises(NotFoundError, match=r"1\.2\.0"):
        registry.alias("support-intents", "candidate", "1.2.9")
    with pytest.raises(NotFoundError):
        registry.log("nothing")


def test_pull_into_a_folder(registry: Registry, bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    registry.publish(bundle, "m", lineage={})
    registry.publish(other_bundle, "m", lineage={})
    into = registry.pull("m@1.0.0", tmp_path / "new" / "place")
    assert {path.name: path.read_bytes() for path in into.iterdir()} == {
        path.name: path.read_bytes() for path in bundle.iterdir()
    }
    assert registry.pull("m@1.0.0", into) == into
    (tmp_path / "empty").mkdir()
    assert registry.pull("m@1.0.0", tmp_path / "empty").joinpath("config.json").is_file()
    for taken in (into, tmp_path):
        with pytest.raises(UsageError, match="holds other files"):
            registry.pull("m@1.0.1", taken)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is not a folder"):
        registry.pull("m", tmp_path / "file")


def test_folders_in_a_bundle(registry: Registry, bundle: Path) -> None:
    (bundle / "onnx" / "more").mkdir(parents=True)
    (bundle / "onnx" / "more" / "notes.md").write_text("notes")
    (bundle / "onnx" / "empty.md").write_bytes(b"")
    registry.publish(bundle, "m", lineage={})
    pulled = registry.pull("m")
    assert (pulled / "onnx" / "more" / "notes.md").read_text() == "notes"
    assert (pulled / "onnx" / "empty.md").read_bytes() == b""
    assert registry.pull("m") == pulled


def test_a_pulled_model_is_not_fetched_again(store: Store, bundle: Path, tmp_path: Path) -> None:
    recorded = RecordingStore(store)
    registry = Registry(recorded, cache=tmp_path / "cache")
    registry.publish(bundle, "m", lineage={})
    registry.load("m")
    recorded.calls.clear()
    registry.load("m")
    assert recorded.named("stream") == []


def test_what_two_versions_share_is_stored_and_fetched_once(store: Store, bundle: Path, tmp_path: Path) -> None:
    recorded = RecordingStore(store)
    registry = Registry(recorded, cache=tmp_path / "cache")
    registry.publish(bundle, "m", lineage={})
    registry.pull("m")
    recorded.calls.clear()
    registry.publish(make_bundle(tmp_path / "next", weight=3.0), "m", lineage={})
    assert len(recorded.named("put_blob")) == 1
    recorded.calls.clear()
    registry.pull("m")
    assert len(recorded.named("stream")) == 1


def test_the_order_of_publish(store: Store, bundle: Path, tmp_path: Path) -> None:
    recorded = RecordingStore(store)
    Registry(recorded, cache=tmp_path / "cache").publish(bundle, "m", lineage={})
    writes = [call for call in recorded.calls if call[0] in ("create", "put", "put_blob", "delete")]
    kinds = [f"{call[0]} {str(call[1]).split('/')[0]}" for call in writes]
    assert kinds == [
        "create leases",
        *["put_blob blobs"] * 5,
        *["put blobs"] * 2,
        # Renewed right before the commit.
        "create leases",
        "delete leases",
        "create models",
        *["put models"] * 2,
        "delete leases",
    ]
    assert store.children("leases") == []


def test_what_is_refused_reaches_no_store(store: Store, bundle: Path, tmp_path: Path) -> None:
    recorded = RecordingStore(store)
    (bundle / "weights.pkl").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(RefusedError):
        Registry(recorded, cache=tmp_path / "cache").publish(bundle, "m", lineage={})
    assert recorded.calls == []


@pytest.mark.parametrize("name", ["", "A", "../m", "m/n", "-m", "m" * 129, "m@x", "mö", "m\n", ".m"])
def test_hostile_model_names(folder_registry: Registry, bundle: Path, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    for call in (
        lambda: folder_registry.publish(bundle, name, lineage={}),
        lambda: folder_registry.alias(name, "candidate", "1.0.0"),
        lambda: folder_registry.list(name),
        lambda: folder_registry.log(name),
        lambda: folder_registry.load(f"{name}@1.0.0"),
    ):
        with pytest.raises(UsageError):
            call()
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_versions_aliases_and_lineage_change_nothing(folder_registry: Registry, bundle: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"version": "1.0"},
        {"version": "01.0.0"},
        {"alias": "1.0.0"},
        {"alias": "v2"},
        {"lineage": {"loss": float("nan")}},
        {"lineage": {1: {2}}},
        {"lineage": "text"},
    ]
    for options in wrong:
        with pytest.raises(UsageError):
            folder_registry.publish(bundle, "m", **{"lineage": {}, **options})
    assert folder_registry.models() == ()
    folder_registry.publish(bundle, "m", lineage={})
    with pytest.raises(UsageError):
        folder_registry.alias("m", "production", "1.0.0", expected="yesterday")


def test_a_long_reason_is_an_error_of_the_caller(folder_registry: Registry, bundle: Path) -> None:
    with pytest.raises(UsageError, match="reason"):
        folder_registry.publish(bundle, "m", lineage={}, reason="x" * 5000)
    assert folder_registry.models() == ()


def test_two_registries_in_one_bucket(s3_url: str, bundle: Path, tmp_path: Path) -> None:
    Registry(s3_url, cache=tmp_path / "c").publish(bundle, "m", lineage={})
    neighbour = Registry(s3_url.replace("team/a", "team/b"), cache=tmp_path / "c")
    assert neighbour.models() == ()
    assert Registry(s3_url, cache=tmp_path / "c").load("m").labels == LABELS
