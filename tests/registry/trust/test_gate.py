"""What the policy refuses is not resolved, pulled or loaded, whoever wrote what into the store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slm_registry import CorruptError, NotFoundError, PolicyError, Registry, UnreachableError, UsageError
from slm_registry.log.history import History, Operation
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore
from slm_registry.trust.gate import Gate
from slm_registry.trust.keys import PrivateKey
from slm_registry.trust.policy import parse_policy, read_policy
from slm_registry.trust.signatures import Subject, encode_signature, put_signature, signature_key

from tests.registry.recording import RecordingStore
from tests.registry.trusting import Pair, make_pair, write_policy

BY_CI = 'models = ["*"]\nkeys = ["ci"]'
BY_BOTH = 'models = ["*"]\nkeys = ["ci", "release"]\nsignatures = 2'
PRODUCTION = 'models = ["*"]\naliases = ["production"]\nkeys = ["release"]'


class Desk:
    """A store, two trusted pairs and a stranger's, and registries with policies over that store."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.root = RecordingStore(store), root
        self.ci, self.release, self.mallory = (make_pair(root / "keys", name) for name in ("ci", "release", "mallory"))

    def registry(self, *rules: str, cache: str = "cache") -> Registry:
        policy = write_policy(self.root / "policy.toml", [self.ci, self.release], *rules) if rules else None
        return Registry(self.store, cache=self.root / cache, actor="alice", policy=policy)

    def place(self, digest: str, pair: Pair) -> str:
        return signature_key(digest, pair.shown.id)


@pytest.fixture
def desk(store: Store, tmp_path: Path) -> Desk:
    return Desk(store, tmp_path)


@pytest.fixture
def folder_desk(tmp_path: Path) -> Desk:
    return Desk(FolderStore(tmp_path / "store"), tmp_path)


def test_signed_at_publish_and_loaded(desk: Desk, bundle: Path) -> None:
    done = desk.registry().publish(bundle, "m", lineage={}, key=desk.ci.private)
    writes = [call[:2] for call in desk.store.calls if call[0] in ("create", "put", "put_blob")]
    writes = [call for call in writes if not str(call[1]).startswith("leases/")]
    signed = writes.index(("create", desk.place(done.digest, desk.ci)))
    # After every blob, before the entry.
    hints = [("put", "models/m/index.json"), ("put", "models/m/head.json")]
    assert writes[signed + 1 :] == [("create", "models/m/log/000000000001.json"), *hints]
    assert desk.registry(BY_CI).load("m").predict(["hello"])[0].label == "other"
    resolved, keys = desk.registry(BY_CI).verify("m")
    assert (resolved.version, [key.name for key in keys]) == ("1.0.0", ["ci"])


def refused(desk: Desk, *rules: str, ref: str = "m", cache: str = "fresh") -> str:
    """The one message with which resolve, pull, load and verify all refuse."""
    registry = desk.registry(*rules, cache=cache)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: registry.resolve(ref),
        lambda: registry.pull(ref),
        lambda: registry.pull(ref, desk.root / "into"),
        lambda: registry.load(ref),
        lambda: registry.verify(ref),
    )
    messages = set()
    for call in calls:
        with pytest.raises(PolicyError) as caught:
            call()
        messages.add(str(caught.value))
    assert not (desk.root / "into").exists()
    assert not list((desk.root / cache).glob("models/*/snapshots/*"))
    (message,) = messages
    return message


def test_unsigned(desk: Desk, bundle: Path) -> None:
    desk.registry().publish(bundle, "m", lineage={})
    assert "wants signatures by ci (ci: there is none)" in refused(desk, BY_CI)
    assert desk.registry().load("m").labels
    # Looking is free: what it says is not loaded.
    assert desk.registry(BY_CI).show("m").version == "1.0.0"
    assert desk.registry(BY_CI).list("m")[0].version == "1.0.0"


def test_signed_afterwards(desk: Desk, bundle: Path) -> None:
    desk.registry().publish(bundle, "m", lineage={}, key=desk.ci.private)
    assert "release: there is none" in refused(desk, BY_BOTH)
    registry = desk.registry(BY_BOTH)
    signed, created = registry.sign("m", key=desk.release.private)
    assert (signed.version, created) == ("1.0.0", True)
    assert registry.sign("m@1.0.0", key=desk.release.private)[1] is False
    assert registry.load("m").labels
    assert {key.name for key in registry.verify("m")[1]} == {"ci", "release"}
    with pytest.raises(NotFoundError):
        registry.sign("m@2.0.0", key=desk.release.private)


def test_signed_by_a_stranger(desk: Desk, bundle: Path) -> None:
    desk.registry().publish(bundle, "m", lineage={}, key=desk.mallory.private)
    message = refused(desk, BY_CI)
    assert f"other keys that claim to have signed: {desk.mallory.shown.id[:12]}" in message


def damaged(kind: str, desk: Desk, subject: Subject) -> bytes:
    good = encode_signature(desk.ci.key, subject)
    return {
        "tampered": good.replace(
            b'"signature":"' + good[14:15], b'"signature":"' + (b"0" if good[14:15] != b"0" else b"1")
        ),
        "garbage": b"\x00" * 50,
        "empty": b"",
        "deep": b"[" * 4000,
        "huge": b" " * (1 << 20),
        "wrong key": encode_signature(desk.mallory.key, subject),
        "another model": encode_signature(desk.ci.key, Subject("n", subject.version, subject.manifest)),
        "another version": encode_signature(desk.ci.key, Subject(subject.model, "0.9.0", subject.manifest)),
        "another manifest": encode_signature(
            desk.ci.key, Subject(subject.model, subject.version, "sha256:" + "0" * 64)
        ),
        "expired": encode_signature(desk.ci.key, subject, "2020-01-01"),
        "downgraded": good.replace(b"ed25519", b"none"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "complaint"),
    {
        "tampered": "does not verify",
        "garbage": "not strict JSON",
        "empty": "not strict JSON",
        "deep": "nested|recursion|not strict JSON",
        "huge": "more than the 4096 bytes",
        "wrong key": "made for m@1.0.0 by",
        "another model": "made for n@",
        "another version": "made for m@0.9.0",
        "another manifest": "made for",
        "expired": "expired on 2020-01-01",
        "downgraded": "'none' is unknown",
    }.items(),
)
def test_a_signature_of_no_worth(folder_desk: Desk, bundle: Path, kind: str, complaint: str) -> None:
    desk = folder_desk
    done = desk.registry().publish(bundle, "m", lineage={})
    place = desk.place(done.digest, desk.ci)
    desk.store.put(place, damaged(kind, desk, Subject("m", "1.0.0", done.digest)))
    with pytest.raises(PolicyError, match=complaint):
        desk.registry(BY_CI, cache="fresh").load("m")
    refused(desk, BY_CI)
    # In the cache it is worth no more, and does not stand in the way of a good one.
    cached = desk.root / "fresh" / place
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(damaged(kind, desk, Subject("m", "1.0.0", done.digest)))
    refused(desk, BY_CI)
    desk.registry().sign("m", key=desk.ci.private)
    assert desk.registry(BY_CI, cache="fresh").load("m").labels


def test_one_bad_signature_does_not_spoil_a_good_one(folder_desk: Desk, bundle: Path) -> None:
    desk = folder_desk
    done = desk.registry().publish(bundle, "m", lineage={}, key=desk.release.private)
    desk.store.put(desk.place(done.digest, desk.ci), b"{}")
    either = 'models = ["*"]\nkeys = ["ci", "release"]'
    assert [key.name for key in desk.registry(either).verify("m")[1]] == ["release"]


def test_a_link_in_place_of_a_signature(folder_desk: Desk, bundle: Path) -> None:
    desk = folder_desk
    done = desk.registry().publish(bundle, "m", lineage={})
    signature = desk.root / "elsewhere.json"
    signature.write_bytes(encode_signature(desk.ci.key, Subject("m", "1.0.0", done.digest)))
    place = desk.root / "store" / desk.place(done.digest, desk.ci)
    place.parent.mkdir(parents=True)
    place.symlink_to(signature)
    assert "found a link" in refused(desk, BY_CI)


def forge(desk: Desk, operation: Operation) -> None:
    History(desk.store, "m").append(lambda state: operation, actor="mallory", reason="")


def test_a_signed_manifest_under_another_version(folder_desk: Desk, bundle: Path) -> None:
    """Replayed: an old signed manifest is entered as the newest version."""
    desk = folder_desk
    done = desk.registry().publish(bundle, "m", lineage={}, key=desk.ci.private)
    forge(desk, Operation("publish", {"version": "9.0.0", "manifest": done.digest, "size": 1, "facts": {}}))
    assert "it was made for m@1.0.0" in refused(desk, BY_CI)
    assert desk.registry(BY_CI).load("m@1.0.0").labels


def test_a_signed_manifest_under_another_model(folder_desk: Desk, bundle: Path) -> None:
    desk = folder_desk
    done = desk.registry().publish(bundle, "n", lineage={}, key=desk.ci.private)
    forge(desk, Operation("publish", {"version": "1.0.0", "manifest": done.digest, "size": 1, "facts": {}}))
    assert "it was made for n@1.0.0" in refused(desk, BY_CI)


def test_production_set_back_to_an_old_signed_version(desk: Desk, bundle: Path, other_bundle: Path) -> None:
    registry = desk.registry()
    registry.publish(bundle, "m", lineage={}, key=desk.ci.private, alias="production")
    registry.publish(other_bundle, "m", lineage={}, key=desk.ci.private, alias="production")
    floor = BY_CI + '\noldest = "1.0.1"'
    assert desk.registry(floor).load("m").labels
    forge(desk, Operation("alias", {"alias": "production", "version": "1.0.0", "expected": "1.0.1"}))
    assert "refuses versions below 1.0.1" in refused(desk, floor)


def test_an_alias_asks_for_more(desk: Desk, bundle: Path) -> None:
    registry = desk.registry()
    registry.publish(bundle, "m", lineage={}, key=desk.ci.private, alias="candidate")
    assert desk.registry(BY_CI, PRODUCTION).load("m@candidate").labels
    # A bare name means the newest version as long as there is no production.
    assert desk.registry(BY_CI, PRODUCTION).load("m").labels
    registry.alias("m", "production", "1.0.0")
    for ref in ("m", "m@production"):
        assert "m@1.0.0 (as production)" in refused(desk, BY_CI, PRODUCTION, ref=ref)
    assert desk.registry(BY_CI, PRODUCTION).load("m@1.0.0").labels
    registry.sign("m@1.0.0", key=desk.release.private)
    assert desk.registry(BY_CI, PRODUCTION).load("m").labels


def test_a_model_that_no_rule_speaks_of(folder_desk: Desk, bundle: Path) -> None:
    folder_desk.registry().publish(bundle, "m", lineage={}, key=folder_desk.ci.private)
    assert "no rule" in refused(folder_desk, 'models = ["support-*"]\nkeys = ["ci"]')
    assert folder_desk.registry('models = ["m"]\nsignatures = 0').load("m").labels
    assert "no rule" in refused(folder_desk, 'models = ["*"]\naliases = ["production"]\nsignatures = 0')


def test_a_key_of_the_past(folder_desk: Desk, bundle: Path) -> None:
    desk = folder_desk
    done = desk.registry().publish(bundle, "m", lineage={}, key=desk.ci.private)
    table = {"public": desk.ci.shown.line, "expires": "2020-01-01"}
    policy = parse_policy({"format": 1, "keys": {"ci": table}, "rules": [{"models": ["*"], "keys": ["ci"]}]}, "p")
    with pytest.raises(PolicyError, match="ci: the key expired on 2020-01-01"):
        Registry(desk.store, cache=desk.root / "c", policy=policy).load("m")
    assert Gate(desk.store, desk.root / "c", None).check(Subject("m", "1.0.0", done.digest), None) == ()


class Gone:
    """A store that nobody answers for."""

    url = identity = "s3://gone"

    def __getattr__(self, name: str) -> Any:
        raise UnreachableError("the network is gone")


def test_a_pulled_model_is_verified_with_the_store_gone(desk: Desk, bundle: Path) -> None:
    done = desk.registry().publish(bundle, "m", lineage={}, key=desk.ci.private)
    subject = Subject("m", "1.0.0", done.digest)
    policy = read_policy(write_policy(desk.root / "policy.toml", [desk.ci, desk.release], BY_CI))
    offline = Gate(Gone(), desk.root / "cache", policy)  # type: ignore[arg-type]
    with pytest.raises(UnreachableError):
        offline.check(subject, None)
    desk.registry(BY_CI).load("m")
    assert [key.name for key in offline.check(subject, None)] == ["ci"]
    with pytest.raises(UnreachableError):
        offline.check(Subject("m", "1.0.1", "sha256:" + "0" * 64), None)
    cached = desk.root / "cache" / desk.place(done.digest, desk.ci)
    cached.write_bytes(cached.read_bytes().replace(b"1.0.0", b"1.0.1"))
    with pytest.raises(UnreachableError):
        offline.check(subject, None)
    # With the store back, the cache heals.
    desk.registry(BY_CI).load("m")
    assert [key.name for key in offline.check(subject, None)] == ["ci"]


def test_a_verified_signature_is_not_fetched_again(desk: Desk, bundle: Path) -> None:
    desk.registry().publish(bundle, "m", lineage={}, key=desk.ci.private)
    registry = desk.registry(BY_CI)
    registry.load("m")
    desk.store.calls.clear()
    registry.load("m")
    assert not [call for call in desk.store.calls if "signatures" in str(call[1])]


def test_a_thousand_foreign_signatures_cost_no_request(folder_desk: Desk, bundle: Path) -> None:
    """The keys of the policy are asked for by name, so what others pile up beside them is never read."""
    desk = folder_desk
    done = desk.registry().publish(bundle, "m", lineage={}, key=desk.ci.private)
    for number in range(1000):
        path = desk.root / "store" / signature_key(done.digest, f"{number:064x}")
        path.write_bytes(b"x")
    desk.store.calls.clear()
    desk.registry(BY_CI).load("m")
    assert [call for call in desk.store.calls if "signatures" in str(call[1])] == [
        ("get", desk.place(done.digest, desk.ci))
    ]


def test_a_read_only_cache_is_worth_a_word(folder_desk: Desk, bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = folder_desk
    done = desk.registry().publish(bundle, "m", lineage={}, key=desk.ci.private)
    desk.registry().load("m")
    (desk.root / "cache" / "signatures").write_text("in the way")
    assert desk.registry(BY_CI).load("m").labels
    assert "the signature is not kept" in caplog.text
    assert done.created


def test_verify_needs_something_to_go_by(folder_desk: Desk, bundle: Path) -> None:
    desk = folder_desk
    registry = desk.registry()
    registry.publish(bundle, "m", lineage={}, key=desk.mallory.private)
    with pytest.raises(UsageError, match="nothing to verify by"):
        registry.verify("m")
    assert [key.name for key in registry.verify("m", [desk.mallory.public])[1]] == ["mallory"]
    with pytest.raises(PolicyError, match="the keys asked for"):
        registry.verify("m", [desk.mallory.public, desk.ci.public])
    # A key that was asked for does not stand in for one that the policy wants.
    with pytest.raises(PolicyError, match=r"policy\.toml wants signatures by ci"):
        desk.registry(BY_CI).verify("m", [desk.mallory.public])


def test_verify_reads_every_file(folder_desk: Desk, bundle: Path, flip: Callable[[Path, int], None]) -> None:
    registry = folder_desk.registry()
    registry.publish(bundle, "m", lineage={}, key=folder_desk.ci.private)
    shutil.rmtree(folder_desk.root / "cache", ignore_errors=True)
    for blob in (folder_desk.root / "store" / "blobs" / "sha256").iterdir():
        if blob.read_bytes() == (bundle / "README.md").read_bytes():
            flip(blob, 5)
    with pytest.raises(CorruptError, match=r"README\.md: chunk 0 .* altered"):
        registry.verify("m", [folder_desk.ci.public])


def test_publishing_the_same_again_signs_it(desk: Desk, bundle: Path) -> None:
    registry = desk.registry()
    done = registry.publish(bundle, "m", version="1.0.0", lineage={"a": 1})
    again = registry.publish(bundle, "m", version="1.0.0", lineage={"a": 1}, key=desk.ci.private)
    assert (again.digest, again.created) == (done.digest, False)
    assert desk.registry(BY_CI).load("m").labels


def test_what_somebody_else_published_is_not_signed_unseen(desk: Desk, bundle: Path) -> None:
    """The same files with another lineage are another manifest, and a key answers only for what it was shown."""
    desk.registry().publish(bundle, "m", lineage={"by": "mallory"})
    with pytest.raises(PolicyError, match="with another lineage"):
        desk.registry().publish(bundle, "m", lineage={}, key=desk.ci.private)
    refused(desk, BY_CI)


def test_a_key_that_cannot_be_read_reaches_no_store(desk: Desk, bundle: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        desk.registry().publish(bundle, "m", lineage={}, key=desk.root / "none.pem")
    assert desk.store.calls == []


def test_key_and_policy_from_the_environment(folder_desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = folder_desk
    policy = write_policy(desk.root / "policy.toml", [desk.ci, desk.release], BY_CI)
    monkeypatch.setenv("SLM_REGISTRY_POLICY", str(policy))
    registry = Registry(desk.store, cache=desk.root / "cache")
    registry.publish(bundle, "m", lineage={})
    with pytest.raises(PolicyError):
        registry.load("m")
    monkeypatch.setenv("SLM_REGISTRY_KEY", str(desk.ci.private))
    registry.publish(bundle, "m", version="1.0.0", lineage={})
    assert registry.load("m").labels


def test_two_signers_at_once(store: Store, tmp_path: Path) -> None:
    key: PrivateKey = make_pair(tmp_path / "keys", "ci").key
    subject = Subject("m", "1.0.0", "sha256:" + "0" * 64)
    first, second = RecordingStore(store), store
    sound = first.create

    def create(place: str, data: bytes) -> bool:
        put_signature(second, key, subject)
        return sound(place, data)

    first.create = create  # type: ignore[method-assign]
    assert put_signature(first, key, subject)
