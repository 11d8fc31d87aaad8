"""OpenSSF Model Signing bundles over a version's files, through the package `model-signing` (an extra).

signatures/<hex of the manifest's digest>/openssf-<hex of the public key's digest>.json

They are made and checked by that package, so that its own tool checks them too, without this registry. They cover the
files and not the model's name or version; policies go by the registry's own signatures.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slm_registry.errors import PolicyError, UsageError
from slm_registry.stores.base import Store
from slm_registry.trust.keys import passphrase_for
from slm_registry.trust.signatures import signature_folder

MAX_BUNDLE = 16 << 20
PREFIX = "openssf-"


def put_bundle(store: Store, manifest: str, folder: Path, key: Path) -> str:
    """Sign the files in a version's folder with an EC key (PEM; P-256, P-384 or P-521); returns where the bundle lies."""
    place = _place(manifest, _public_der(key, private=True))
    with _errors(f"sign with {key}"), tempfile.TemporaryDirectory() as work:
        from model_signing import hashing, signing

        target = Path(work) / "model.sig"
        # It says that it wants a str, and hands what it gets to cryptography, which wants bytes.
        config = signing.Config().use_elliptic_key_signer(private_key=key, password=passphrase_for(key.read_bytes()))
        config.set_hashing_config(hashing.Config()).sign(folder, target)
        data = target.read_bytes()
    # Such signatures are random: a later one of the same key over the same files is as good as the one before.
    store.put(place, data)
    return place


def check_bundle_of(store: Store, manifest: str, folder: Path, public: Path) -> bytes:
    """The bundle that a key signed over the files in a folder. Raises PolicyError where there is none or it is wrong."""
    place = _place(manifest, _public_der(public, private=False))
    data = store.get(place, MAX_BUNDLE)
    if data is None:
        raise PolicyError(f"{store.url}: there is no model-signing bundle by {public} for this version ({place})")
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "model.sig"
        source.write_bytes(data)
        from model_signing import verifying

        config = verifying.Config().use_elliptic_key_verifier(public_key=public)
        try:
            config.verify(folder, source)
        except Exception as error:
            raise PolicyError(f"{store.url}: {place} does not verify: {error}") from error
    return data


def _place(manifest: str, public: bytes) -> str:
    return f"{signature_folder(manifest)}/{PREFIX}{hashlib.sha256(public).hexdigest()}.json"


def _public_der(path: Path, *, private: bool) -> bytes:
    """The public key in a PEM file, or that of the private key in it."""
    with _errors(f"read {path}"):
        # That package imports it, and without it would fail later and less clearly.
        import model_signing  # noqa: F401
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_private_key,
            load_pem_public_key,
        )

        data = path.read_bytes()
        key = load_pem_private_key(data, passphrase_for(data)).public_key() if private else load_pem_public_key(data)
        if not isinstance(key, EllipticCurvePublicKey):
            raise UsageError(f"{path}: model signing takes an EC key (P-256, P-384, P-521), not {type(key).__name__}")
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"cannot {what}: {error.name} is not installed; pip install 'slm-registry[signing]'"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"cannot {what}: {error}; give a PEM file with an EC key (P-256, P-384 or P-521)") from error
