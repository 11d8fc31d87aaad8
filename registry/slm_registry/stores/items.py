"""What a store's listing tells of an object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """An object: its key, its size in bytes, and when it was last written, in seconds by the store's own clock."""

    key: str
    size: int
    modified: float

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]
