"""Leases: a publisher at work tells a garbage collector which blobs are about to be referenced."""

from __future__ import annotations

import contextlib
import datetime
import logging
import uuid
from collections.abc import Iterable, Iterator

from slm_registry.errors import StoreError
from slm_registry.jsonio import canonical
from slm_registry.stores import Store

logger = logging.getLogger("slm_registry")


@contextlib.contextmanager
def lease(store: Store, model: str, actor: str, blobs: Iterable[str]) -> Iterator[None]:
    """Hold a lease on blobs, by digest, for as long as the block runs."""
    key = f"leases/{uuid.uuid4().hex}.json"
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    value = {"format": 1, "model": model, "actor": actor, "at": at, "blobs": sorted(set(blobs))}
    if not store.create(key, canonical(value)):
        raise StoreError(f"{store.url}: the lease {key} exists already; run it again")
    try:
        yield
    finally:
        try:
            store.delete(key)
        except StoreError as error:
            # It expires by itself, and must not hide what happened under it.
            logger.warning("the lease %s was not removed: %s", key, error)
