"""The way from an address to a store."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from slm_registry.errors import UsageError
from slm_registry.plumbing.files import expanded
from slm_registry.plumbing.printable import address
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore


def open_store(url: str | os.PathLike[str]) -> Store:
    """The store behind a path, a `file://` URL or an `s3://bucket/prefix` URL. Nothing is contacted yet.

    Raises UsageError for any other URL.
    """
    text = os.fspath(url)
    if not text:
        raise UsageError("the store's address is empty; give a folder or s3://bucket/prefix")
    if text.encode(errors="ignore").decode() != text:
        raise UsageError(f"store {text!r}: the address is not UTF-8; give the folder or the bucket another name")
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme == "s3":
        from slm_registry.stores.s3 import S3Store  # boto3 stays unimported for folders

        return S3Store.from_url(text)
    if scheme == "file":
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = None
        if parts is None or parts.netloc not in ("", "localhost") or not parts.path:
            raise UsageError(f"store {address(text)!r}: a file URL has three slashes: file:///srv/store")
        return FolderStore(Path(unquote(parts.path)))
    if scheme:
        raise UsageError(
            f"store {address(text)!r}: the scheme {scheme!r} is unknown; use a folder, file:// or s3://bucket/prefix"
        )
    return FolderStore(expanded(text, "give the store's whole path"))
