"""A large file into a bucket, in parts that go side by side, and on from the parts that an earlier run left there."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_registry.errors import CorruptError
from slm_registry.files import changed
from slm_registry.hashing import FileDigests
from slm_registry.parallel import each
from slm_registry.progress import Moved

logger = logging.getLogger("slm_registry")
MAX_PARTS = 10_000
_GONE = "NoSuchUpload"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the file, made of whole chunks."""

    number: int
    start: int
    end: int
    chunks: tuple[str, ...]


def parts_of(digests: FileDigests, least: int) -> list[Part]:
    """Parts of `least` bytes or more (the last may have fewer), at most as many as S3 takes."""
    least = max(least, -(-digests.size // MAX_PARTS))
    each_part = -(-least // digests.chunk_size)
    size = each_part * digests.chunk_size
    return [
        Part(index + 1, index * size, min((index + 1) * size, digests.size), digests.chunks[first : first + each_part])
        for index, first in enumerate(range(0, len(digests.chunks), each_part))
    ]


def checksum(data: bytes) -> str:
    """SHA-256 as S3 writes it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def is_checked(answer: Mapping[str, Any], data: bytes, expected: str) -> bool:
    """Whether the store's answer to a write says that it received `data`: its SHA-256 echoed, or its MD5 as the ETag."""
    if answer.get("ChecksumSHA256") is not None:
        return bool(answer["ChecksumSHA256"] == expected)
    return str(answer.get("ETag", "")).strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()


class MultipartUpload:
    """One file on its way to one key. `client` is an S3 client, whose errors are the caller's to translate."""

    def __init__(
        self, client: Any, at: Mapping[str, str], file: int, source: Path, digests: FileDigests, moved: Moved
    ) -> None:
        self._client = client
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
            if error.response.get("Error", {}).get("Code") != _GONE:
                raise
            # Another publisher of the same bytes completed it, or the answer to our own completion got lost.
            held = self._client.head_object(**self._at)["ContentLength"]
            if held != self._digests.size:
                raise
            return False
        return all(checked for _, checked in sent)

    def _begin(self) -> None:
        """Find an upload that was broken off, or begin a new one."""
        from botocore.exceptions import ClientError

        bucket, key = self._at["Bucket"], self._at["Key"]
        try:
            found = self._client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", [])
            for upload in found:
                if upload["Key"] == key:
                    pages = self._client.get_paginator("list_parts").paginate(**self._at, UploadId=upload["UploadId"])
                    self._there = {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}
                    self._id = upload["UploadId"]
                    return
        except ClientError as error:
            # Credentials that may write need not be allowed to list: then it begins anew.
            logger.debug("no upload to go on with: %s", error)
        self._there = {}
        self._id = self._client.create_multipart_upload(**self._at, ChecksumAlgorithm="SHA256")["UploadId"]

    def _send(self, part: Part) -> tuple[dict[str, Any], bool]:
        """Upload one part that is not there yet: what completion wants to hear of it, and whether it is checked."""
        data = self._read(part)
        # A part is mostly one chunk, whose digest is known.
        expected = base64.b64encode(bytes.fromhex(part.chunks[0])).decode() if len(part.chunks) == 1 else checksum(data)
        answer = self._there.get(part.number)
        checked = answer is not None and answer.get("Size") == len(data) and is_checked(answer, data, expected)
        if answer is None or not checked:
            answer = self._client.upload_part(
                **self._at, UploadId=self._id, PartNumber=part.number, Body=data, ChecksumSHA256=expected
            )
            checked = is_checked(answer, data, expected)
        self._moved(len(data))
        described = {"PartNumber": part.number, "ETag": answer["ETag"]}
        if answer.get("ChecksumSHA256"):
            described["ChecksumSHA256"] = answer["ChecksumSHA256"]
        return described, checked

    def _read(self, part: Part) -> bytes:
        """The part's bytes, being those that were digested."""
        data = os.pread(self._file, part.end - part.start, part.start)
        view, size = memoryview(data), self._digests.chunk_size
        found = tuple(hashlib.sha256(view[at : at + size]).hexdigest() for at in range(0, len(data), size))
        if found != part.chunks:
            raise changed(self._source)
        return data
