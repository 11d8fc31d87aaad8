"""The store that is a bucket, or a prefix of one, behind the S3 protocol."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from slm_registry.errors import (
    AccessError,
    AddressError,
    CorruptError,
    NoSpaceError,
    ReadOnlyError,
    RegistryError,
    StoreError,
    UnreachableError,
    UsageError,
)
from slm_registry.names import check_key
from slm_registry.plumbing.files import changed, open_regular, os_errors
from slm_registry.plumbing.hashing import FileDigests, digest_file
from slm_registry.plumbing.parallel import LANES
from slm_registry.plumbing.printable import address
from slm_registry.plumbing.progress import Moved, ignore
from slm_registry.stores.items import Item
from slm_registry.stores.multipart import MultipartUpload, changed_is, check_body, checksum, is_checked

ATTEMPTS = 6
# What is larger goes in parts of at least PART bytes, so that no more than LANES of them are in memory.
SINGLE_PUT = PART = 16 << 20
_BLOCK = 1 << 20
_MISSING = {"404", "NoSuchKey", "NotFound"}
_LOST = {"412", "PreconditionFailed"}
_AGAIN = {"409", "ConditionalRequestConflict", "OperationAborted"}
_DENIED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_BEHIND = {"416", "InvalidRange"}
_REMEDIES: tuple[tuple[set[str], type[StoreError], str], ...] = (
    ({"NoSuchBucket"}, AddressError, "there is no such bucket: create it or correct the URL"),
    (
        {"301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"},
        AddressError,
        "the bucket is in another region: add ?region=... to the URL",
    ),
    (_DENIED, AccessError, "check the credentials, and that they may do s3:GetObject and s3:ListBucket"),
    ({"RequestTimeTooSkewed"}, AccessError, "this machine's clock is off, and requests are signed with it: set it"),
    (
        {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"},
        NoSpaceError,
        "free some space or raise the quota",
    ),
)
# Answers that stay the same however often it is asked. Of a condition (409, 412) or of load (408, 429) none is.
_NEVER = {400, 405, 411, 413, 414, 501}
# Except for what the line did to a request on its way.
_GARBLED = {"RequestTimeout", "IncompleteBody", "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"}


class _BrokenBody(UnreachableError):
    """The store answered, and then the connection broke: worth going on."""


class S3Store:
    """A store in a bucket whose PutObject honours `If-None-Match: *`."""

    def __init__(
        self, bucket: str, prefix: str = "", endpoint_url: str | None = None, region: str | None = None
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        endpoint = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self.identity = f"{self.url}?{urlencode({'endpoint_url': endpoint.rstrip('/')})}"
        self._endpoint_url = endpoint_url
        self._region = region
        self._made: Any = None
        self._lock = threading.Lock()
        # So many parts are in memory at most, of however many files.
        self._lanes = threading.BoundedSemaphore(LANES)

    @classmethod
    def from_url(cls, url: str) -> S3Store:
        """Read `s3://bucket/prefix?endpoint_url=...&region=...`. Raises UsageError for anything else."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise UsageError(f"store s3://{url.rpartition('@')[2].removeprefix('s3://')}: {error}") from error
        try:
            query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        except ValueError as error:
            raise UsageError(f"store {address(url)!r}: what follows the ? cannot be read: {error}") from error
        options = {key: values[-1] for key, values in query.items()}
        unknown = sorted(set(options) - {"endpoint_url", "region"})
        if not parts.netloc or "@" in parts.netloc or unknown or parts.fragment:
            raise UsageError(
                f"store {address(url)!r}: write "
                "s3://bucket/prefix?endpoint_url=...&region=... (both optional; credentials go into the environment)"
                + (f", not {unknown[0]!r}" if unknown else "")
            )
        prefix = unquote(parts.path).strip("/")
        if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
            raise UsageError(f"store {address(url)!r}: the prefix {prefix!r} holds an empty or dotted segment")
        return cls(parts.netloc, prefix, options.get("endpoint_url"), options.get("region"))

    def get(self, key: str, limit: int) -> bytes | None:
        data = bytearray()
        for attempt in range(1, ATTEMPTS + 1):
            data.clear()
            try:
                with self._errors("read", key):
                    body = self._open(key, f"bytes=0-{limit}")
                    if body is None:
                        return None
                    for block in self._blocks(body):
                        data += block
                break
            except _BrokenBody:
                if attempt == ATTEMPTS:
                    raise
                _pause(attempt)
        if len(data) > limit:
            raise CorruptError(f"{self._name(key)}: more than the {limit} bytes allowed for such an object")
        return bytes(data)

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        failures = 0
        while start < end:
            try:
                with self._errors("read", key):
                    for block in self._blocks(self._open(key, f"bytes={start}-{end - 1}") or io.BytesIO()):
                        start += len(block)
                        yield block
                return
            except _BrokenBody:
                # Go on from the byte that is missing.
                failures += 1
                if failures == ATTEMPTS:
                    raise
                _pause(failures)

    def _open(self, key: str, byte_range: str) -> Any:
        """The body of a ranged read: None where there is no such object, empty where the range lies behind its end."""
        try:
            return self._client.get_object(**self._at(key), Range=byte_range)["Body"]
        except self._service_error as error:
            if _code(error) in _MISSING:
                return None
            if _code(error) in _BEHIND:
                return io.BytesIO()
            raise

    def _blocks(self, body: Any) -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError

        with contextlib.closing(body):
            try:
                while block := body.read(_BLOCK):
                    yield block
            except (BotoCoreError, OSError) as error:
                raise _BrokenBody(f"s3://{self.bucket}: the connection broke within an answer: {error}") from error

    def size(self, key: str) -> int | None:
        with self._errors("read", key):
            try:
                return int(self._client.head_object(**self._at(key))["ContentLength"])
            except self._service_error as error:
                if _code(error) in _MISSING:
                    return None
                raise

    def create(self, key: str, data: bytes) -> bool:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._errors("write", key):
                    answer = self._try_create(key, data)
            except UnreachableError:
                # Time-out, reset or 5xx: the write may have happened. Only what the key holds can tell.
                if attempt == ATTEMPTS:
                    raise
                answer = None
            if answer is True:
                return True
            # After a 412 too: the client library may have sent it twice, and the first one won unheard.
            held = self.get(key, max(len(data), _BLOCK))
            if held is not None:
                return held == data
            _pause(attempt)
        raise UnreachableError(f"{self._name(key)}: still in conflict after {ATTEMPTS} attempts; run it again")

    def _try_create(self, key: str, data: bytes) -> bool | None:
        """True: written. False: there was one. None: the store asks to try again."""
        try:
            self._client.put_object(**self._at(key), Body=data, IfNoneMatch="*", ChecksumSHA256=checksum(data))
        except self._service_error as error:
            if _code(error) in _LOST:
                return False
            if _code(error) in _AGAIN:
                return None
            raise
        return True

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data, checksum(data))

    def _put(self, key: str, data: bytes, sha256: str) -> Mapping[str, Any]:
        with self._errors("write", key):
            answer: Mapping[str, Any] = self._client.put_object(**self._at(key), Body=data, ChecksumSHA256=sha256)
        return answer

    def put_blob(
        self,
        key: str,
        source: Path,
        hex_digest: str,
        digests: FileDigests | None = None,
        moved: Moved = ignore,
    ) -> bool:
        with os_errors("read", source), open_regular(source) as file:
            if os.fstat(file.fileno()).st_size > SINGLE_PUT:
                known = digests if digests and digests.checksums else digest_file(file, checksums=True)
                if known.digest != f"sha256:{hex_digest}":
                    raise changed(source)
                with self._errors("write", key):
                    at, number = self._at(key), file.fileno()
                    return MultipartUpload(self._client, at, number, source, known, moved, self._lanes).run(PART)
            data = file.read()
        expected = base64.b64encode(bytes.fromhex(hex_digest)).decode()
        with changed_is(source):
            answer = self._put(key, data, expected)
        moved(len(data))
        return is_checked(answer, data, expected)

    def delete(self, key: str) -> None:
        with self._errors("remove", key):
            self._client.delete_object(**self._at(key))

    def children(self, prefix: str) -> list[str]:
        where = self.prefix + check_key(prefix) + "/"
        found: set[str] = set()
        with self._errors("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=where, Delimiter="/"
            )
            for page in pages:
                names = [item["Prefix"] for item in page.get("CommonPrefixes", [])]
                names += [item["Key"] for item in page.get("Contents", [])]
                found.update(name[len(where) :].rstrip("/") for name in names)
        return sorted(name for name in found if name and not name.startswith("."))

    def listing(self, prefix: str) -> Iterator[Item]:
        where = self.prefix + check_key(prefix) + "/"
        with self._errors("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=where, Delimiter="/"
            )
            for page in pages:
                for found in page.get("Contents", []):
                    name = found["Key"][len(where) :]
                    if name and not name.startswith("."):
                        yield Item(f"{prefix}/{name}", found["Size"], found["LastModified"].timestamp())

    def unfinished(self, before: float, *, remove: bool) -> list[Item]:
        uploads = [upload for upload in self._uploads() if upload["Initiated"].timestamp() < before]
        for upload in uploads if remove else ():
            with self._errors("remove", "blobs"):
                self._abort(upload["Key"], upload["UploadId"])
        # How many bytes of parts an upload holds is not told.
        return [Item(u["Key"][len(self.prefix) :], 0, u["Initiated"].timestamp()) for u in uploads]

    def _uploads(self) -> list[dict[str, Any]]:
        """The multipart uploads of blobs that are open; others may share the bucket, and theirs are no concern."""
        with self._errors("list", "blobs"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=f"{self.prefix}blobs/"
            )
            return [upload for page in pages for upload in page.get("Uploads", [])]

    def _abort(self, full_key: str, upload: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=full_key, UploadId=upload)
        except self._service_error as error:
            if _code(error) not in {"NoSuchUpload", *_MISSING}:
                raise

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + check_key(key)}

    def _name(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    @property
    def _service_error(self) -> type[Exception]:
        from botocore.exceptions import ClientError

        found: type[Exception] = ClientError
        return found

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _make_client(self._endpoint_url, self._region)
            return self._made

    @contextlib.contextmanager
    def _errors(self, what: str, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except RegistryError:
            raise
        except self._service_error as error:
            raise self._service_failure(what, key, error) from error
        except (BotoCoreError, OSError) as error:
            raise self._client_failure(what, key, error) from error

    def _service_failure(self, what: str, key: str, error: Exception) -> StoreError:
        code = _code(error)
        where = f"cannot {what} {self._name(key)}: the store answered {code}"
        if code in _DENIED and what in ("write", "remove"):
            return ReadOnlyError(f"{where}; these credentials may not write: ask for s3:PutObject and s3:DeleteObject")
        for codes, kind, remedy in _REMEDIES:
            if code in codes:
                return kind(f"{where}; {remedy}")
        if _status(error) in _NEVER and code not in _GARBLED:
            return StoreError(f"{where}; it will not take such a request: probe it with slm-registry certify")
        return UnreachableError(f"{where}; try again, and check the endpoint if it stays so")

    def _client_failure(self, what: str, key: str, error: Exception) -> StoreError:
        from botocore import exceptions

        where = f"cannot {what} {self._name(key)}"
        if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
            return AccessError(f"{where}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
        if isinstance(error, exceptions.ParamValidationError | exceptions.InvalidRegionError):
            return AddressError(f"{where}: {error}; correct the URL")
        return UnreachableError(f"{where}: {error}; check the network and the endpoint")


def _make_client(endpoint_url: str | None, region: str | None) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=2 * LANES,
        retries={"mode": "standard", "total_max_attempts": 4},
        # The default checksums break on some look-alikes, and readers check SHA-256 themselves.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint_url or os.environ.get("AWS_ENDPOINT_URL") else {},
    )
    try:
        # A session of its own: the default one is shared by the whole process and not safe to set up in threads.
        session = boto3.session.Session(region_name=region)
        client = session.client(
            "s3", endpoint_url=endpoint_url, region_name=session.region_name or "us-east-1", config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"the S3 client cannot be set up: {error}; check endpoint, region and profile") from error
    client.meta.events.register("before-send.s3.PutObject", check_body)
    return client


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", "?"))


def _status(error: Exception) -> int:
    return int(getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _pause(attempt: int, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait a little longer each time, and not in step with the others."""
    sleep(random.uniform(0.5, 1.0) * min(2.0, 0.05 * 2**attempt))
