"""What a bucket's server does beyond the store's interface: versions, and which checksums it verifies."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from typing import Any

from slm_registry.stores.multipart import check_body
from slm_registry.stores.s3 import S3Store


def is_versioned(store: S3Store, key: str) -> bool:
    """Whether the bucket keeps versions (or did): then an object that is there, such as `key`, has a version's id."""
    with store._errors("read", key):
        return "VersionId" in store._client.head_object(**store._at(key))


def verified_checksums(store: S3Store, key: str) -> tuple[str, ...]:
    """The checksums that the server compares with the bytes it gets: it is sent wrong ones."""
    other = b"other bytes"
    wrong: dict[str, dict[str, Any]] = {
        "SHA-256": {"ChecksumSHA256": base64.b64encode(hashlib.sha256(other).digest()).decode()},
        "CRC-32": {"ChecksumCRC32": base64.b64encode(zlib.crc32(other).to_bytes(4, "big")).decode()},
        "Content-MD5": {"ContentMD5": base64.b64encode(hashlib.md5(other, usedforsecurity=False).digest()).decode()},
    }
    with _unchecked(store):
        return tuple(name for name, options in wrong.items() if _is_refused(store, key, options))


@contextlib.contextmanager
def _unchecked(store: S3Store) -> Iterator[None]:
    """Without the client's own look at a body before it is sent: here it is the server that shall look."""
    events, event = store._client.meta.events, "before-send.s3.PutObject"
    events.unregister(event, check_body)
    try:
        yield
    finally:
        events.register(event, check_body)


def _is_refused(store: S3Store, key: str, options: dict[str, Any]) -> bool:
    from botocore.exceptions import ClientError

    with store._errors("write", key):
        try:
            store._client.put_object(**store._at(key), Body=b"some bytes", **options)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 400:
                raise
            return True
    return False


def remove_versions(store: S3Store, folder: str) -> None:
    """Remove every version and every delete marker below `folder/`."""
    with store._errors("remove", folder):
        prefix = store._at(folder)["Key"] + "/"
        pages = store._client.get_paginator("list_object_versions").paginate(Bucket=store.bucket, Prefix=prefix)
        for page in pages:
            for item in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
                store._client.delete_object(Bucket=store.bucket, Key=item["Key"], VersionId=item["VersionId"])
