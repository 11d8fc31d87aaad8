"""A large file into a bucket, in parts that go side by side, and on from the parts that an earlier run left there."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_registry.errors import CorruptError
from slm_registry.plumbing.files import changed
from slm_registry.plumbing.hashing import FileDigests
from slm_registry.plumbing.parallel import each
from slm_registry.plumbing.progress import Moved

logger = logging.getLogger("slm_registry")
MAX_PARTS = 10_000
_GONE = "NoSuchUpload"
_ALGORITHM = "CRC32"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the file, made of whole chunks."""

    number: int
    start: int
    end: int
    checksums: tuple[int, ...]


def parts_of(digests: FileDigests, least: int) -> list[Part]:
    """Parts of `least` bytes or more (the last may have fewer), at most as many as S3 takes."""
    least = max(least, -(-digests.size // MAX_PARTS))
    each_part = -(-least // digests.chunk_size)
    size = each_part * digests.chunk_size
    return [
        Part(
            index + 1, index * size, min((index + 1) * size, digests.size), digests.checksums[first : first + each_part]
        )
        for index, first in enumerate(range(0, len(digests.checksums), each_part))
    ]


def checksum(data: bytes) -> str:
    """SHA-256 as S3 writes it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def is_checked(answer: Mapping[str, Any], data: bytes, expected: str) -> bool:
    """Whether the store's answer to a write says that it received `data`: its checksum echoed, or its MD5 as the ETag."""
    echo = answer.get("ChecksumSHA256") or answer.get("ChecksumCRC32")
    if echo is not None:
        return bool(echo == expected)
    return str(answer.get("ETag", "")).strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()


class _OtherBytesError(CorruptError):
    """What is about to be sent has another digest than the one announced with it."""


def check_body(request: Any, **_: Any) -> None:
    """Stop a request whose body is not what its x-amz-checksum-sha256 says, in the last moment before it is sent.

    The client library hashes every body to sign it; this compares that digest, so that no byte is hashed twice.
    """
    announced = _header(request, "x-amz-checksum-sha256")
    if announced is None:
        return
    signed = _header(request, "X-Amz-Content-SHA256") or ""
    if not re.fullmatch(r"[0-9a-f]{64}", signed):
        signed = hashlib.sha256(request.body or b"").hexdigest()
    if bytes.fromhex(signed) != base64.b64decode(announced):
        raise _OtherBytesError("the body is not what was announced")


def _header(request: Any, name: str) -> str | None:
    value = request.headers.get(name)
    return value.decode() if isinstance(value, bytes) else value


@contextlib.contextmanager
def changed_is(source: Path) -> Iterator[None]:
    """Say of a body that was stopped which file it came from."""
    try:
        yield
    except _OtherBytesError as error:
        raise changed(source) from error


class MultipartUpload:
    """One file on its way to one key. `client` is an S3 client, whose errors are the caller's to translate.

    What is sent is compared with the CRC-32 that `digests` hold of each chunk, and announced with it. `lanes` bounds the
    parts in memory.
    """

    def __init__(
        self,
        client: Any,
        at: Mapping[str, str],
        file: int,
        source: Path,
        digests: FileDigests,
        moved: Moved,
        lanes: contextlib.AbstractContextManager[Any],
    ) -> None:
        self._client = client
        self._lanes = lanes
        self._at = dict(at)
        self._file = file
        self._digests = digests
        self._source = source
        self._moved = moved
        self._id = ""
        self._there: dict[int, Mapping[str, Any]] = {}

    def run(self, part_size: int) -> bool:
        """Upload what is missing and complete. Whether every part is known to have arrived as it was sent.

        Raises CorruptError where the file no longer has these digests. A broken upload stays, for the next run.
        """
        from botocore.exceptions import ClientError

        self._begin()
        try:
            sent = each(self._send, parts_of(self._digests, part_size))
            parts = [described for described, _ in sent]
            self._client.complete_multipart_upload(**self._at, UploadId=self._id, MultipartUpload={"Parts": parts})
        except CorruptError:
            # Nobody will ever have these bytes again.
            self._client.abort_multipart_upload(**self._at, UploadId=self._id)
            raise
        except ClientError as error:
            # Another publisher of the same bytes completed it, or the answer to our own completion got lost. Some stores
            # answer 500 to a part of an upload that ended meanwhile.
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if (error.response.get("Error", {}).get("Code") != _GONE and status < 500) or not self._is_held():
                raise
            return False
        return all(checked for _, checked in sent)

    def _is_held(self) -> bool:
        """Whether the whole blob stands there, by its size."""
        from botocore.exceptions import ClientError

        try:
            return bool(self._client.head_object(**self._at)["ContentLength"] == self._digests.size)
        except ClientError:
            return False

    def _begin(self) -> None:
        """Find an upload that was broken off, or begin a new one."""
        from botocore.exceptions import ClientError

        bucket, key = self._at["Bucket"], self._at["Key"]
        try:
            found = self._client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", [])
            for upload in found:
                # One of an earlier release takes no parts with another checksum.
                if upload["Key"] == key and upload.get("ChecksumAlgorithm") in (None, _ALGORITHM):
                    pages = self._client.get_paginator("list_parts").paginate(**self._at, UploadId=upload["UploadId"])
                    self._there = {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}
                    self._id = upload["UploadId"]
                    return
        except ClientError as error:
            # Credentials that may write need not be allowed to list: then it begins anew.
            logger.debug("no upload to go on with: %s", error)
        self._there = {}
        self._id = self._client.create_multipart_upload(**self._at, ChecksumAlgorithm=_ALGORITHM)["UploadId"]

    def _send(self, part: Part) -> tuple[dict[str, Any], bool]:
        """Upload one part that is not there yet: what completion wants to hear of it, and whether it is checked."""
        with self._lanes:
            data = os.pread(self._file, part.end - part.start, part.start)
            expected = self._checksum(part, data)
            answer = self._there.get(part.number)
            checked = answer is not None and answer.get("Size") == len(data) and is_checked(answer, data, expected)
            if answer is None or not checked:
                answer = self._client.upload_part(
                    **self._at,
                    UploadId=self._id,
                    PartNumber=part.number,
                    Body=data,
                    ChecksumAlgorithm=_ALGORITHM,
                    ChecksumCRC32=expected,
                )
                checked = is_checked(answer, data, expected)
        self._moved(len(data))
        described = {"PartNumber": part.number, "ETag": answer["ETag"]}
        if answer.get("ChecksumCRC32"):
            described["ChecksumCRC32"] = answer["ChecksumCRC32"]
        return described, checked

    def _checksum(self, part: Part, data: bytes) -> str:
        """The checksum to announce, of bytes that are still those that were digested."""
        view, size = memoryview(data), self._digests.chunk_size
        found = tuple(zlib.crc32(view[at : at + size]) for at in range(0, len(data), size))
        if found != part.checksums:
            raise changed(self._source)
        whole = found[0] if len(found) == 1 else zlib.crc32(data)
        return base64.b64encode(whole.to_bytes(4, "big")).decode()
