"""Ed25519 keys: a private key in a PEM file of its owner's, a public key as one line of text.

slm-ed25519 <base64 of the 32 bytes> <name>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slm_registry import names
from slm_registry.errors import UsageError
from slm_registry.plumbing.files import expanded, os_errors

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_VARIABLE = "SLM_REGISTRY_KEY"
PASSPHRASE_VARIABLE = "SLM_REGISTRY_KEY_PASSPHRASE"
MAX_KEY_FILE = 16 << 10

_LINE = re.compile(r"slm-ed25519 ([A-Za-z0-9+/]{43}=) (\S{1,128})\s*")
_PRIME = 2**255 - 19
# The y of the points of small order: under such a key anybody can make a signature of anything.
_WEAK = {
    0,
    1,
    _PRIME - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key under a name; the name is for people, `id` is what signatures are filed under."""

    name: str
    raw: bytes

    @property
    def id(self) -> str:
        """The hex SHA-256 of the key's 32 bytes."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def line(self) -> str:
        """The key as one line of text."""
        return f"slm-ed25519 {base64.b64encode(self.raw).decode()} {self.name}"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature was made over the message with the private half of this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key, and the public one that belongs to it."""

    public: PublicKey
    _key: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature; the same message always gives the same."""
        return self._key.sign(message)


def parse_public(text: str, what: str) -> PublicKey:
    """Read a public key's line. Raises UsageError, naming `what`, for anything else."""
    match = _LINE.fullmatch(text)
    if match is None or not names.is_model_name(match[2]):
        raise UsageError(f"{what}: not a public key; it is one line: slm-ed25519 <44 characters of base64> <name>")
    try:
        raw = base64.b64decode(match[1], validate=True)
    except binascii.Error as error:
        raise UsageError(f"{what}: not a public key: {error}") from error
    if len(raw) != 32 or base64.b64encode(raw).decode() != match[1]:
        raise UsageError(f"{what}: not a public key: 32 bytes in the one form of base64 were expected")
    if int.from_bytes(raw, "little") % 2**255 % _PRIME in _WEAK:
        raise UsageError(f"{what}: this key has small order, and anybody can sign for it; make one with `key new`")
    return PublicKey(match[2], raw)


def read_public(path: Path) -> PublicKey:
    """Read a public key's file. Raises UsageError where it holds none."""
    return parse_public(_read(path).decode("utf-8", "replace"), f"public key {path}")


def read_private(path: Path) -> PrivateKey:
    """Read a PEM file, with the passphrase from $SLM_REGISTRY_KEY_PASSPHRASE if it needs one.

    Raises UsageError where it holds no Ed25519 key, the passphrase is wrong, or other users may read the file.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path, private=True)
    try:
        key = load_pem_private_key(data, passphrase_for(data))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"key {path}: cannot be read: {error}; it must be a PEM file, its passphrase in ${PASSPHRASE_VARIABLE}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"key {path}: {type(key).__name__} is not an Ed25519 key; make one with `key new`")
    name = path.stem if names.is_model_name(path.stem) else "unnamed"
    return PrivateKey(PublicKey(name, key.public_key().public_bytes_raw()), key)


def default_key() -> Path | None:
    """The file that $SLM_REGISTRY_KEY names, None where it is not set."""
    named = os.environ.get(KEY_VARIABLE)
    return expanded(named, f"name the whole path in {KEY_VARIABLE}") if named else None


def new_key(name: str, folder: Path) -> tuple[Path, Path]:
    """Make NAME.pem, which only this user may read, and NAME.pub beside it; returns both.

    The private key is encrypted where $SLM_REGISTRY_KEY_PASSPHRASE is set. Raises UsageError where a file is there
    already.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
    )

    if not names.is_model_name(name):
        raise UsageError(f"key name {name[:80]!r} is not allowed; use a-z, 0-9, dot, underscore and dash")
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    passphrase = _passphrase()
    locked: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    key = Ed25519PrivateKey.generate()
    _write_new(public, (PublicKey(name, key.public_key().public_bytes_raw()).line + "\n").encode(), 0o644)
    try:
        _write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked), 0o600)
    except BaseException:
        public.unlink()
        raise
    return private, public


def passphrase_for(pem: bytes) -> bytes | None:
    """The passphrase from $SLM_REGISTRY_KEY_PASSPHRASE for a key that is encrypted: a plain one is not read with any."""
    return _passphrase() if b"ENCRYPTED" in pem[:64] else None


def _passphrase() -> bytes | None:
    named = os.environ.get(PASSPHRASE_VARIABLE)
    return named.encode("utf-8", "surrogateescape") if named else None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    with os_errors("write", path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError as error:
            raise UsageError(f"{path} exists already; keys are never overwritten, pick another name") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)


def _read(path: Path, *, private: bool = False) -> bytes:
    """A small file. Links are followed: that is how secrets are mounted into containers."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UsageError(f"key {path}: there is no such file; make a pair with `slm-registry key new NAME`") from error
    except OSError as error:
        raise UsageError(f"key {path}: {error.strerror}; name a readable file") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UsageError(f"key {path}: not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        if private and found.st_uid == os.getuid() and found.st_mode & 0o077:
            raise UsageError(f"key {path}: other users may read it; run chmod 600 {path}")
        data = file.read(MAX_KEY_FILE + 1)
    if len(data) > MAX_KEY_FILE:
        raise UsageError(f"key {path}: more than {MAX_KEY_FILE} bytes; it is no key")
    return data
