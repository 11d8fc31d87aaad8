"""A bit flipped anywhere is found, never loaded, and only the bad chunk is fetched again; with manifests of both forms."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from slm_registry import ConflictError, CorruptError, RefusedError, Registry
from slm_registry.bundles.manifest import BundleFile
from slm_registry.plumbing.hashing import CHUNKS, PREFIXES, Form, digest_of
from slm_registry.plumbing.jsonio import canonical
from slm_registry.plumbing.progress import ignore
from slm_registry.stores.folder import FolderStore
from slm_registry.transfer.download import Download
from slm_registry.upkeep import fsck

from tests.registry.helpers import make_bundle
from tests.registry.recording import RecordingStore

Flip = Callable[[Path, int], None]
CHUNK = 100


class Setup:
    """A published model with a file of many chunks, in a recorded folder store."""

    def __init__(self, root: Path, bundle: Path, form: Form = PREFIXES) -> None:
        (bundle / "weights.safetensors").write_bytes(bytes(range(250)) * 4)
        self.store = RecordingStore(FolderStore(root / "store"))
        self.registry = Registry(self.store, cache=root / "cache", chunk_size=CHUNK)
        publisher = replace(self.registry.publisher("m"), form=form)
        self.published = publisher.publish(bundle, version=None, lineage={"a": 1}, alias=None, reason="")
        self.hex = digest_of((bundle / "weights.safetensors").read_bytes())[7:]
        self.blob = root / "store" / "blobs" / "sha256" / self.hex
        self.cached = root / "cache" / "blobs" / self.hex
        self.cache = root / "cache"

    def fetched(self) -> list[tuple[object, ...]]:
        """The spans of the large file that were asked of the store."""
        return [(start, end) for key, start, end in self.store.named("stream") if str(key).endswith(self.hex)]


@pytest.fixture(params=[PREFIXES, CHUNKS])
def setup(tmp_path: Path, bundle: Path, request: pytest.FixtureRequest) -> Setup:
    made = Setup(tmp_path, bundle, request.param)
    made.store.calls.clear()
    return made


def test_each_chunk_is_fetched_once(setup: Setup) -> None:
    setup.registry.load("m")
    assert sorted(setup.fetched()) == [(start, start + CHUNK) for start in range(0, 1000, CHUNK)]


def test_a_bad_chunk_in_the_store(setup: Setup, flip: Flip) -> None:
    flip(setup.blob, 512)
    with pytest.raises(CorruptError, match=r"weights\.safetensors: chunk 5 \(bytes 500 to 599\)"):
        setup.registry.load("m")
    assert setup.fetched().count((500, 600)) == 2
    assert not setup.cached.exists()
    assert list((setup.cache / "models").rglob("*.*")) == []
    # Repaired in the store, only what was wrong is fetched.
    flip(setup.blob, 512)
    setup.store.calls.clear()
    setup.registry.load("m")
    assert setup.fetched() == [(500, 600)]


def test_a_chunk_that_arrives_bad_once(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = setup.store.inner.stream
    spoiled: list[str] = []

    def stream(key: str, start: int, end: int) -> Iterator[bytes]:
        data = b"".join(sound(key, start, end))
        if key.endswith(setup.hex) and start == 300 and not spoiled:
            spoiled.append(key)
            data = data[:-1]
        yield data

    monkeypatch.setattr(setup.store.inner, "stream", stream)
    setup.registry.load("m")
    assert spoiled
    assert [span for span in setup.fetched() if span == (300, 400)] == [(300, 400)] * 2
    assert len(setup.fetched()) == 11


def test_a_flipped_bit_in_the_cache_costs_one_chunk(setup: Setup, flip: Flip) -> None:
    folder = setup.registry.pull("m")
    flip(folder / "weights.safetensors", 730)
    setup.store.calls.clear()
    setup.registry.load("m")
    assert setup.fetched() == [(700, 800)]
    assert digest_of((folder / "weights.safetensors").read_bytes())[7:] == setup.hex


def test_a_file_cut_short_grown_or_gone_in_the_cache(setup: Setup) -> None:
    folder = setup.registry.pull("m")
    path = folder / "weights.safetensors"
    data = path.read_bytes()
    for broken in (data[:650], data + b"more", None):
        path.unlink()
        if broken is not None:
            path.write_bytes(broken)
        setup.registry.load("m")
        assert path.read_bytes() == data
    setup.store.calls.clear()
    setup.cached.chmod(0o644)
    setup.cached.write_bytes(data[:650])
    path.unlink()
    setup.registry.load("m")
    assert sorted(setup.fetched()) == [(start, start + CHUNK) for start in range(600, 1000, CHUNK)]
    assert path.read_bytes() == data


def test_a_broken_download_resumes(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = setup.store.inner.stream

    def stream(key: str, start: int, end: int) -> Iterator[bytes]:
        if key.endswith(setup.hex) and start == 400:
            raise KeyboardInterrupt
        yield from sound(key, start, end)

    with monkeypatch.context() as patch:
        patch.setattr(setup.store.inner, "stream", stream)
        with pytest.raises(KeyboardInterrupt):
            setup.registry.pull("m")
    begun = setup.fetched()
    partial = setup.cached.with_name(setup.hex + ".partial").read_bytes()
    whole = setup.blob.read_bytes()
    landed = {
        start for start in range(0, 1000, CHUNK) if partial[start : start + CHUNK] == whole[start : start + CHUNK]
    }
    assert landed >= {0, 100, 200, 300}
    assert landed <= {start for start, _ in begun} - {400}
    setup.store.calls.clear()
    setup.registry.pull("m")
    assert {start for start, _ in setup.fetched()} == set(range(0, 1000, CHUNK)) - landed
    assert not setup.cached.with_name(setup.hex + ".partial").exists()


def test_a_download_killed_at_its_last_calls_goes_on(unprivileged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(unprivileged, make_bundle(unprivileged / "bundle"))
    partial = setup.cached.with_name(setup.hex + ".partial")
    replace = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if path == partial:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            setup.registry.pull("m")
    assert partial.stat().st_mode & 0o200
    # As earlier releases left it.
    partial.chmod(0o444)
    assert (setup.registry.pull("m") / "weights.safetensors").read_bytes() == setup.blob.read_bytes()
    assert not partial.exists()


def test_a_flipped_bit_in_the_manifest_or_the_lineage(setup: Setup, flip: Flip) -> None:
    blobs = setup.blob.parent
    details = setup.registry.show("m")
    manifest = blobs / setup.published.digest[7:]
    flip(manifest, 30)
    with pytest.raises(CorruptError, match="manifest of m@"):
        setup.registry.load("m")
    flip(manifest, 30)
    config = blobs / json.loads(manifest.read_bytes())["config"]["digest"][7:]
    flip(config, 30)
    with pytest.raises(CorruptError, match="lineage of m@"):
        setup.registry.show("m")
    flip(config, 30)
    assert setup.registry.show("m") == details


@pytest.mark.parametrize("number", [1, 2])
def test_every_bit_of_an_entry_counts(setup: Setup, bundle: Path, tmp_path: Path, flip: Flip, number: int) -> None:
    setup.registry.alias("m", "candidate", "1.0.0")
    setup.registry.alias("m", "production", "1.0.0")
    log = tmp_path / "store" / "models" / "m" / "log"
    path = log / f"{number:012d}.json"
    for position in range(0, path.stat().st_size, 7):
        flip(path, position)
        with pytest.raises(CorruptError):
            setup.registry.log("m")
        flip(path, position)
    assert len(setup.registry.log("m")) == 3


def test_publishing_again_repairs_the_store(setup: Setup, bundle: Path, flip: Flip) -> None:
    flip(setup.blob, 512)
    done = setup.registry.publish(bundle, "m", lineage={}, repair=True)
    assert not done.created
    assert digest_of(setup.blob.read_bytes())[7:] == setup.hex
    setup.registry.load("m@1.0.0")
    # What is missing or of another size is found without being asked.
    for spoil in (setup.blob.unlink, lambda: setup.blob.write_bytes(b"short")):
        spoil()
        setup.registry.publish(bundle, "m", version=f"2.0.{setup.blob.exists():d}", lineage={})
        assert digest_of(setup.blob.read_bytes())[7:] == setup.hex


@pytest.mark.parametrize("options", [{}, {"version": "1.0.0"}, {"version": "1.0.0", "repair": True}])
@pytest.mark.parametrize("what", ["file", "manifest", "lineage"])
@pytest.mark.parametrize("content", [None, b"", b"x" * 5000])
def test_a_publish_that_finds_its_version_there_brings_what_is_missing(
    setup: Setup, bundle: Path, options: dict[str, Any], what: str, content: bytes | None
) -> None:
    manifest = setup.blob.parent / setup.published.digest[7:]
    lineage = setup.blob.parent / json.loads(manifest.read_bytes())["config"]["digest"][7:]
    blob = {"file": setup.blob, "manifest": manifest, "lineage": lineage}[what]
    sound = blob.read_bytes()
    if content is None:
        blob.unlink()
    else:
        blob.write_bytes(content)
    assert not setup.registry.publish(bundle, "m", lineage={"a": 1}, **options).created
    assert blob.read_bytes() == sound
    assert fsck.check(setup.store).damage == ()


def test_an_intact_version_with_another_lineage_has_its_files_brought(setup: Setup, bundle: Path) -> None:
    setup.blob.unlink()
    assert not setup.registry.publish(bundle, "m", lineage={"a": 2}).created
    assert setup.blob.exists()
    (setup.blob.parent / setup.published.digest[7:]).unlink()
    with pytest.raises(CorruptError, match=r"manifest of m@1\.0\.0: .* is missing"):
        setup.registry.publish(bundle, "m", lineage={"a": 2})


def test_a_stranger_in_a_snapshot_is_named(setup: Setup, tmp_path: Path) -> None:
    folder = setup.registry.pull("m")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CorruptError, match=r"adapter_config\.json: not a file of m@1\.0\.0"):
        setup.registry.load("m")
    (folder / "adapter_config.json").unlink()
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "bundle" / "README.md")
    with pytest.raises(CorruptError, match=r"README\.md: a plain file was expected"):
        setup.registry.load("m")


def test_a_snapshot_holds_no_links(setup: Setup) -> None:
    folder = setup.registry.pull("m")
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert (folder / "weights.safetensors").stat().st_ino == setup.cached.stat().st_ino


def test_a_missing_blob_is_named(setup: Setup) -> None:
    setup.blob.unlink()
    with pytest.raises(CorruptError, match=r"weights\.safetensors: chunk 0 .* missing or altered"):
        setup.registry.load("m")


CHUNKS_LIST, PREFIXES_LIST = "io.slm-registry.chunks.sha256", "io.slm-registry.prefixes.sha256"


def forge(setup: Setup, path: str, data: bytes, chunks: str | None = None) -> str:
    """What a publisher without scruples would write: a manifest with one more file, in a log entry of its own."""
    store = setup.store.inner
    value = json.loads(store.get(f"blobs/sha256/{setup.published.digest[7:]}", 1 << 20) or b"")
    digest = digest_of(data)
    store.put(f"blobs/sha256/{digest[7:]}", data)
    annotations = {"org.cncf.model.filepath": path}
    if chunks or CHUNKS_LIST in value["layers"][0]["annotations"]:
        annotations[CHUNKS_LIST] = chunks or f"{CHUNK}:{digest[7:]}"
    else:
        annotations[PREFIXES_LIST] = f"{CHUNK}:"
    layer = {"mediaType": "application/vnd.cncf.model.doc.v1.raw", "digest": digest, "size": len(data)}
    value["layers"].append({**layer, "annotations": annotations})
    value["annotations"]["org.opencontainers.image.version"] = "6.6.6"
    manifest = canonical(value)
    store.put(f"blobs/sha256/{digest_of(manifest)[7:]}", manifest)
    from slm_registry.log.history import History, Operation

    operation = Operation("publish", {"version": "6.6.6", "manifest": digest_of(manifest), "size": 1, "facts": {}})
    History(store, "m").append(lambda state: operation, actor="mallory", reason="")
    return "m@6.6.6"


def test_a_forged_version_with_forbidden_content_is_not_made_visible(setup: Setup) -> None:
    ref = forge(setup, "weights.pkl", b"\x80\x04K\x01.")
    with pytest.raises(RefusedError, match=r"weights\.pkl"):
        setup.registry.pull(ref)
    assert list((setup.cache / "models").rglob("*.pkl")) == []


@pytest.mark.parametrize("path", ["../../../evil", "/tmp/evil", "a\\..\\evil", "CONFIG.json", "config.json/x"])
def test_a_forged_path_is_never_written(setup: Setup, tmp_path: Path, path: str) -> None:
    ref = forge(setup, path, b"evil")
    with pytest.raises(CorruptError, match="file path"):
        setup.registry.pull(ref)
    assert not list(tmp_path.rglob("*evil*"))


def test_chunks_that_do_not_make_the_whole(tmp_path: Path, bundle: Path) -> None:
    setup = Setup(tmp_path, bundle, CHUNKS)
    halves = [b"a" * CHUNK, b"b" * CHUNK]
    chunks = f"{CHUNK}:" + ",".join(digest_of(half)[7:] for half in reversed(halves))
    ref = forge(setup, "notes.md", b"".join(halves), chunks)
    # Under the digest of one file lies another, and the chunks are those of the other.
    setup.store.inner.put(f"blobs/sha256/{digest_of(b''.join(halves))[7:]}", b"".join(reversed(halves)))
    with pytest.raises(CorruptError, match=r"notes\.md: .* a false manifest"):
        setup.registry.pull(ref)
    assert not list((setup.cache / "models").rglob("notes.md"))


def test_prefixes_that_do_not_end_in_the_whole(setup: Setup, tmp_path: Path) -> None:
    """No manifest that was parsed is such a one; the reader's own digest of the whole decides all the same."""
    data = setup.blob.read_bytes()
    ends = [*range(CHUNK, len(data), CHUNK), len(data)]
    prefixes = tuple(hashlib.sha256(data[:end]).hexdigest() for end in ends)
    true = BundleFile("weights", len(data), f"sha256:{setup.hex}", prefixes)
    other = "sha256:" + "0" * 64
    setup.store.inner.put(f"blobs/sha256/{other[7:]}", data)
    for file, whole in ((true, True), (replace(true, digest=other), False)):
        with (tmp_path / "landed").open("w+b") as landed:
            download = Download(setup.store, file, CHUNK, landed.fileno(), ignore, 2)
            if whole:
                download.run()
                assert (tmp_path / "landed").read_bytes() == data
            else:
                with pytest.raises(CorruptError, match="a false manifest"):
                    download.run()


def test_a_resumed_chunk_that_arrives_bad_is_asked_for_again(setup: Setup, flip: Flip) -> None:
    """As one that is fetched first: the line gets its second chance."""
    folder = setup.registry.pull("m")
    flip(folder / "weights.safetensors", 730)
    sound = setup.store.inner.stream
    spoiled: list[int] = []

    def stream(key: str, start: int, end: int) -> Iterator[bytes]:
        data = b"".join(sound(key, start, end))
        if start == 700 and not spoiled:
            spoiled.append(start)
            data = bytes(len(data))
        yield data

    setup.store.inner.stream = stream  # type: ignore[method-assign]
    setup.store.calls.clear()
    setup.registry.load("m")
    assert setup.fetched() == [(700, 800)] * 2


def test_the_same_files_on_a_version_of_the_other_form(setup: Setup, bundle: Path, tmp_path: Path, flip: Flip) -> None:
    """Publishing it again is success, and mends what of it is damaged, whichever release wrote it."""
    manifest = setup.blob.parent / setup.published.digest[7:]
    sound = manifest.read_bytes()
    for form in (PREFIXES, CHUNKS):
        publisher = replace(setup.registry.publisher("m"), form=form)
        for version in (None, "1.0.0"):
            for spoil in (lambda: None, manifest.unlink, lambda: flip(manifest, 30)):
                spoil()
                done = publisher.publish(bundle, version=version, lineage={"a": 1}, alias=None, reason="")
                assert (done.created, done.digest) == (False, setup.published.digest)
                assert manifest.read_bytes() == sound
    (bundle / "README.md").write_text("# Another")
    with pytest.raises(ConflictError):
        setup.registry.publish(bundle, "m", version="1.0.0", lineage={"a": 1})


def test_behind_a_chunk_that_the_store_has_wrong_the_others_land(
    setup: Setup, flip: Flip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even those that were not begun when it was found."""
    sound = setup.store.inner.stream

    def stream(key: str, start: int, end: int) -> Iterator[bytes]:
        if start:
            time.sleep(0.05)
        yield from sound(key, start, end)

    monkeypatch.setattr(setup.store.inner, "stream", stream)
    flip(setup.blob, 12)
    with pytest.raises(CorruptError, match="chunk 0 "):
        setup.registry.pull("m")
    flip(setup.blob, 12)
    setup.store.calls.clear()
    setup.registry.pull("m")
    assert setup.fetched() == [(0, 100)]
