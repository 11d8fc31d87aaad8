"""A model registry over a folder or an S3 bucket, with no server and no database.

from slm_registry import Registry

model = Registry("store").load("support-intents@production")
model.predict(["where is my parcel?"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slm_registry.bundles.manifest import BundleFile
    from slm_registry.changes.aliases import UNSET, Moved
    from slm_registry.changes.publish import Published
    from slm_registry.client import Registry
    from slm_registry.errors import (
        AccessError,
        AddressError,
        ConflictError,
        CorruptError,
        InputTypeError,
        NoSpaceError,
        NotFoundError,
        PolicyError,
        ReadOnlyError,
        RefusedError,
        RegistryError,
        StoreError,
        UnreachableError,
        UsageError,
    )
    from slm_registry.finding.compare import Comparison
    from slm_registry.finding.records import Details, Resolved, Row
    from slm_registry.log.entries import Entry
    from slm_registry.runtime.decoding import Generation
    from slm_registry.runtime.generating import TextStream
    from slm_registry.runtime.model import Model
    from slm_registry.runtime.text_classification import Prediction, TextClassifier
    from slm_registry.runtime.text_generation import Score, TextGenerator
    from slm_registry.runtime.text_to_text import TextToText
    from slm_registry.runtime.token_classification import Span, TokenClassifier
    from slm_registry.stores.address import open_store
    from slm_registry.stores.base import Store
    from slm_registry.watching.webhooks import verify_webhook

__version__ = "0.1.0"

# Where each public name lives; its module is imported when the name is first used.
_HOMES = {
    "AccessError": "errors",
    "AddressError": "errors",
    "BundleFile": "bundles.manifest",
    "Comparison": "finding.compare",
    "ConflictError": "errors",
    "CorruptError": "errors",
    "Details": "finding.records",
    "Entry": "log.entries",
    "Generation": "runtime.decoding",
    "InputTypeError": "errors",
    "Model": "runtime.model",
    "Moved": "changes.aliases",
    "NoSpaceError": "errors",
    "NotFoundError": "errors",
    "PolicyError": "errors",
    "Prediction": "runtime.text_classification",
    "Published": "changes.publish",
    "ReadOnlyError": "errors",
    "RefusedError": "errors",
    "Registry": "client",
    "RegistryError": "errors",
    "Resolved": "finding.records",
    "Row": "finding.records",
    "Score": "runtime.text_generation",
    "Span": "runtime.token_classification",
    "Store": "stores.base",
    "StoreError": "errors",
    "TextClassifier": "runtime.text_classification",
    "TextGenerator": "runtime.text_generation",
    "TextStream": "runtime.generating",
    "TextToText": "runtime.text_to_text",
    "TokenClassifier": "runtime.token_classification",
    "UNSET": "changes.aliases",
    "UnreachableError": "errors",
    "UsageError": "errors",
    "open_store": "stores.address",
    "verify_webhook": "watching.webhooks",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])


__all__ = [
    "UNSET",
    "AccessError",
    "AddressError",
    "BundleFile",
    "Comparison",
    "ConflictError",
    "CorruptError",
    "Details",
    "Entry",
    "Generation",
    "InputTypeError",
    "Model",
    "Moved",
    "NoSpaceError",
    "NotFoundError",
    "PolicyError",
    "Prediction",
    "Published",
    "ReadOnlyError",
    "RefusedError",
    "Registry",
    "RegistryError",
    "Resolved",
    "Row",
    "Score",
    "Span",
    "Store",
    "StoreError",
    "TextClassifier",
    "TextGenerator",
    "TextStream",
    "TextToText",
    "TokenClassifier",
    "UnreachableError",
    "UsageError",
    "__version__",
    "open_store",
    "verify_webhook",
]
