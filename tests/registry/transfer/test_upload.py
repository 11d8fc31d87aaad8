"""Publishing moves what is missing, goes on where it broke, and believes a store only where that is safe."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slm_registry import CorruptError, Registry, RegistryError, UnreachableError, open_store
from slm_registry.plumbing.hashing import CHUNKS, FileDigests, digest_file
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore
from slm_registry.stores.multipart import is_checked, parts_of
from slm_registry.stores.s3 import S3Store

from tests.registry.recording import RecordingStore

MIB = 1 << 20
DATA = b"".join(bytes([number]) * MIB for number in range(21))


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of five parts: S3, and moto as well, want 5 MiB a part but the last."""
    monkeypatch.setattr("slm_registry.stores.s3.PART", 5 * MIB)
    monkeypatch.setattr("slm_registry.stores.s3.SINGLE_PUT", 5 * MIB)
    path = tmp_path / "large"
    path.write_bytes(DATA)
    return path


def digests_of(path: Path, chunk_size: int = 5 * MIB) -> FileDigests:
    with path.open("rb") as file:
        return digest_file(file, chunk_size, checksums=True)


def key_of(digests: FileDigests) -> str:
    return f"blobs/sha256/{digests.digest[7:]}"


@pytest.mark.parametrize("chunk_size", [100, 5 * MIB, 64 * MIB])
def test_digests_of_a_file(tmp_path: Path, chunk_size: int) -> None:
    for data in (
        b"",
        b"x",
        b"ab" * 100,
        b"a" * 99,
        b"a" * 101,
        DATA[: 11 * MIB + 7] if chunk_size > MIB else b"a" * 1000,
    ):
        (tmp_path / "file").write_bytes(data)
        found = digests_of(tmp_path / "file", chunk_size)
        parts = [data[start : start + chunk_size] for start in range(0, len(data), chunk_size)]
        assert found.digest == "sha256:" + hashlib.sha256(data).hexdigest()
        ends = [min(start + chunk_size, len(data)) for start in range(0, len(data), chunk_size)]
        assert found.chunks == tuple(hashlib.sha256(data[:end]).hexdigest() for end in ends)
        assert found.checksums == tuple(zlib.crc32(part) for part in parts)
        passed = bytearray()
        with (tmp_path / "file").open("rb") as file:
            old = digest_file(file, chunk_size, passed.extend, form=CHUNKS)
        assert (old.digest, old.checksums, passed) == (found.digest, (), data)
        assert old.chunks == tuple(hashlib.sha256(part).hexdigest() for part in parts)
        assert [(start, end) for start, end, _ in found.spans()] == [
            (index * chunk_size, index * chunk_size + len(part)) for index, part in enumerate(parts)
        ]


def test_parts_are_whole_chunks_and_never_too_many() -> None:
    digests = FileDigests(1000, "sha256:x", (), 100, tuple(range(10)))
    assert [(part.number, part.start, part.end, len(part.checksums)) for part in parts_of(digests, 250)] == [
        (1, 0, 300, 3),
        (2, 300, 600, 3),
        (3, 600, 900, 3),
        (4, 900, 1000, 1),
    ]
    many = FileDigests(25_000, "sha256:x", (), 1, tuple(range(25_000)))
    assert len(parts_of(many, 1)) == 8334


@pytest.mark.parametrize("chunk_size", [MIB, 5 * MIB, 64 * MIB])
def test_a_large_file_arrives(store: Store, large: Path, chunk_size: int) -> None:
    digests = digests_of(large, chunk_size)
    heard: list[int] = []
    assert store.put_blob(key_of(digests), large, digests.digest[7:], digests, heard.append)
    assert b"".join(store.stream(key_of(digests), 0, len(DATA))) == DATA
    assert sum(heard) == len(DATA)


def test_a_large_file_that_changed_is_not_stored(store: Store, large: Path) -> None:
    digests = digests_of(large)
    large.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(CorruptError, match="large: the file changed"):
        store.put_blob(key_of(digests), large, digests.digest[7:], digests)
    assert store.size(key_of(digests)) is None
    large.write_bytes(DATA)
    assert store.put_blob(key_of(digests), large, digests.digest[7:], digests)


def parts_sent(store: S3Store, fail: int | None = None) -> list[int]:
    """The numbers of the parts that are sent from now on; that of `fail` does not arrive."""
    sent: list[int] = []

    def watch(params: dict[str, Any], **_: Any) -> None:
        if params["PartNumber"] == fail:
            raise ConnectionResetError("the line broke")
        sent.append(params["PartNumber"])

    store._client.meta.events.register_first("provide-client-params.s3.UploadPart", watch, unique_id="watch")
    return sent


@pytest.fixture
def bucket(s3_url: str) -> Iterator[S3Store]:
    store = open_store(s3_url)
    assert isinstance(store, S3Store)
    yield store
    # The client is shared by all tests.
    store._client.meta.events.unregister("provide-client-params.s3.UploadPart", unique_id="watch")


def test_a_broken_upload_into_a_bucket_goes_on(bucket: S3Store, large: Path) -> None:
    digests = digests_of(large)
    first = parts_sent(bucket, fail=4)
    with pytest.raises(UnreachableError, match="the line broke"):
        bucket.put_blob(key_of(digests), large, digests.digest[7:], digests)
    assert bucket.size(key_of(digests)) is None
    bucket._client.meta.events.unregister("provide-client-params.s3.UploadPart", unique_id="watch")
    second = parts_sent(bucket)
    assert bucket.put_blob(key_of(digests), large, digests.digest[7:], digests)
    assert 4 in second
    assert sorted(first + second) == [1, 2, 3, 4, 5]
    assert b"".join(bucket.stream(key_of(digests), 0, len(DATA))) == DATA


def test_a_broken_upload_into_a_folder_goes_on(tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, digests = FolderStore(tmp_path / "store"), digests_of(large)
    partial = tmp_path / "store" / ".tmp" / f"{digests.digest[7:]}.partial"
    partial.parent.mkdir(parents=True)
    # What an earlier run left: the first part right, the second rotten.
    partial.write_bytes(DATA[: 5 * MIB] + b"?" * 5 * MIB)
    written: list[int] = []
    monkeypatch.setattr(
        "slm_registry.stores.folder.write_at", lambda _, data, start: written.append(start) or real(_, data, start)
    )
    assert store.put_blob(key_of(digests), large, digests.digest[7:], digests)
    assert min(written) == 5 * MIB
    assert b"".join(store.stream(key_of(digests), 0, len(DATA))) == DATA
    assert not partial.exists()


def real(descriptor: int, data: bytes, start: int) -> None:
    import os

    assert os.pwrite(descriptor, data, start) == len(data)


def test_an_unchanged_file_moves_no_byte(store: Store, bundle: Path, tmp_path: Path) -> None:
    recorded = RecordingStore(store)
    registry = Registry(recorded, cache=tmp_path / "cache")
    registry.publish(bundle, "m", lineage={})
    recorded.calls.clear()
    (bundle / "README.md").write_text("# Another card\n")
    registry.publish(bundle, "m", lineage={})
    assert len(recorded.named("put_blob")) == 1
    assert recorded.named("stream") == []


def test_a_file_that_no_manifest_refers_to_is_read_back(store: Store, bundle: Path, tmp_path: Path) -> None:
    data = bytearray((bundle / "tokenizer.json").read_bytes())
    key = f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    data[7] ^= 1
    store.put(key, bytes(data))
    registry = Registry(store, cache=tmp_path / "cache")
    registry.publish(bundle, "m", lineage={})
    assert store.get(key, len(data)) == (bundle / "tokenizer.json").read_bytes()


class Doubtful(RecordingStore):
    """A store that checks nothing, and spoils what it is given `bad` times."""

    bad = 0

    def put_blob(self, *arguments: Any) -> bool:
        super().put_blob(*arguments)
        if self.bad:
            self.bad -= 1
            self.inner.put(arguments[0], b"spoiled")
        return False


def test_what_a_store_does_not_check_is_read_back(bundle: Path, tmp_path: Path) -> None:
    store = Doubtful(FolderStore(tmp_path / "store"))
    Registry(store, cache=tmp_path / "cache").publish(bundle, "m", lineage={})
    assert len(store.named("stream")) == len(list(bundle.iterdir()))
    store.bad = 1
    (bundle / "README.md").write_text("# Another card\n")
    with pytest.raises(CorruptError, match="reads back altered"):
        Registry(store, cache=tmp_path / "cache").publish(bundle, "m", lineage={})
    assert [row.version for row in Registry(store, cache=tmp_path / "cache").list("m")] == ["1.0.0"]


@pytest.mark.parametrize(
    ("answer", "checked"),
    [
        ({"ChecksumSHA256": "right", "ETag": '"no"'}, True),
        ({"ChecksumCRC32": "right", "ETag": '"no"'}, True),
        ({"ChecksumCRC32": "wrong", "ETag": f'"{hashlib.md5(b"x").hexdigest()}"'}, False),
        ({"ChecksumSHA256": "wrong", "ETag": f'"{hashlib.md5(b"x").hexdigest()}"'}, False),
        ({"ETag": f'"{hashlib.md5(b"x").hexdigest()}"'}, True),
        ({"ETag": f'"{hashlib.md5(b"y").hexdigest()}"'}, False),
        ({}, False),
    ],
)
def test_when_an_answer_is_believed(answer: dict[str, str], checked: bool) -> None:
    assert is_checked(answer, b"x", "right") is checked


def test_two_publishers_of_one_large_file(bucket: S3Store, large: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    digests = digests_of(large)
    call: Callable[[int], bool] = lambda _: bucket.put_blob(key_of(digests), large, digests.digest[7:], digests)  # noqa: E731
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(call, range(2)))
    assert b"".join(bucket.stream(key_of(digests), 0, len(DATA))) == DATA


@pytest.mark.parametrize("code", [404, 500])
def test_an_upload_that_another_publisher_ended(
    bucket: S3Store, large: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the store says of the part, the blob stands; where it does not, the part's failure is one."""
    from botocore.exceptions import ClientError

    digests = digests_of(large)
    name = "NoSuchUpload" if code == 404 else "InternalError"

    def fail(**_: object) -> None:
        raise ClientError({"Error": {"Code": name}, "ResponseMetadata": {"HTTPStatusCode": code}}, "UploadPart")

    monkeypatch.setattr(bucket._client, "upload_part", fail)
    with pytest.raises(RegistryError):
        bucket.put_blob(key_of(digests), large, digests.digest[7:], digests)
    bucket.put(key_of(digests), large.read_bytes())
    assert not bucket.put_blob(key_of(digests), large, digests.digest[7:], digests), (
        "to be read back: not known to be checked"
    )


def test_a_folder_is_published_in_one_pass_and_left_clean(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle / "twin.md").write_bytes((bundle / "README.md").read_bytes())
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr("slm_registry.stores.folder._fill", None)
        registry.publish(bundle, "m", lineage={})
        assert list((tmp_path / "store" / ".tmp").iterdir()) == []
        assert (registry.pull("m") / "twin.md").read_bytes() == (bundle / "README.md").read_bytes()
        # Published already: nothing is copied, or no copy stays.
        (bundle / "new.md").write_bytes((bundle / "README.md").read_bytes())
        registry.publish(bundle, "m", lineage={})
    assert list((tmp_path / "store" / ".tmp").iterdir()) == []
    # Of the same size, but another: found by its digest.
    (bundle / "new.md").write_bytes((bundle / "README.md").read_bytes().upper())
    registry.publish(bundle, "m", lineage={})
    assert (registry.pull("m") / "new.md").read_bytes() == (bundle / "new.md").read_bytes()
    assert list((tmp_path / "store" / ".tmp").iterdir()) == []


def test_an_upload_of_an_earlier_release_is_not_gone_on_with(
    bucket: S3Store, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts were announced with another checksum, and a store takes no others into it."""
    digests = digests_of(large)
    first = parts_sent(bucket, fail=4)
    with pytest.raises(UnreachableError):
        bucket.put_blob(key_of(digests), large, digests.digest[7:], digests)
    assert first
    bucket._client.meta.events.unregister("provide-client-params.s3.UploadPart", unique_id="watch")
    listed = bucket._client.list_multipart_uploads

    def older(**where: str) -> dict[str, Any]:
        answer: dict[str, Any] = listed(**where)
        assert answer["Uploads"]
        for upload in answer["Uploads"]:
            upload["ChecksumAlgorithm"] = "SHA256"
        return answer

    monkeypatch.setattr(bucket._client, "list_multipart_uploads", older)
    second = parts_sent(bucket)
    assert bucket.put_blob(key_of(digests), large, digests.digest[7:], digests)
    assert sorted(second) == [1, 2, 3, 4, 5]


def test_a_bundle_for_a_bucket_is_digested_once(
    bucket: S3Store, large: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksums of its parts come from the pass that names its files; several large files share the lanes."""
    monkeypatch.setattr("slm_registry.stores.s3.digest_file", None)
    (bundle / "weights.safetensors").write_bytes(DATA)
    (bundle / "more.safetensors").write_bytes(DATA[::-1])
    registry = Registry(bucket, cache=tmp_path / "cache", chunk_size=5 * MIB)
    sent = parts_sent(bucket)
    registry.publish(bundle, "m", lineage={})
    assert sorted(sent) == sorted([1, 2, 3, 4, 5] * 2)
    pulled = registry.pull("m")
    assert (pulled / "more.safetensors").read_bytes() == DATA[::-1]
