"""Keys: files of one's own, one line of text, and nothing else passes for either."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import UsageError
from slm_registry.trust import keys
from slm_registry.trust.keys import new_key, parse_public, read_private, read_public

PRIME = 2**255 - 19


def test_a_pair_signs_and_verifies(tmp_path: Path) -> None:
    private, public = new_key("ci", tmp_path)
    assert (private.stat().st_mode & 0o777, public.stat().st_mode & 0o777 & ~0o022) == (0o600, 0o644)
    assert public.read_text() == read_public(public).line + "\n"
    key = read_private(private)
    assert key.public == read_public(public)
    assert len(key.public.id) == 64
    signature = key.sign(b"text")
    assert key.public.verifies(signature, b"text")
    assert not key.public.verifies(signature, b"other")
    assert not key.public.verifies(signature[:-1] + bytes([signature[-1] ^ 1]), b"text")


def test_a_pair_is_never_overwritten(tmp_path: Path) -> None:
    private, public = new_key("ci", tmp_path)
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        new_key("ci", tmp_path)
    assert (private.read_bytes(), public.read_bytes()) == before
    public.unlink()
    with pytest.raises(UsageError, match="exists already"):
        new_key("ci", tmp_path)
    assert not public.exists()


def test_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLM_REGISTRY_KEY_PASSPHRASE", "correct horse")
    private, public = new_key("ci", tmp_path)
    assert b"ENCRYPTED" in private.read_bytes()
    assert read_private(private).public == read_public(public)
    for wrong in ("battery staple", ""):
        monkeypatch.setenv("SLM_REGISTRY_KEY_PASSPHRASE", wrong)
        with pytest.raises(UsageError, match="SLM_REGISTRY_KEY_PASSPHRASE"):
            read_private(private)
    # An open key is read whether or not a passphrase is set for others.
    monkeypatch.delenv("SLM_REGISTRY_KEY_PASSPHRASE")
    opened = new_key("open", tmp_path)[0]
    monkeypatch.setenv("SLM_REGISTRY_KEY_PASSPHRASE", "correct horse")
    read_private(opened)


def test_files_that_hold_no_private_key(tmp_path: Path) -> None:
    private, public = new_key("ci", tmp_path)
    curve = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec.pem").write_bytes(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "ec.pem").chmod(0o600)
    (tmp_path / "long.pem").write_bytes(private.read_bytes() + b"\n" * keys.MAX_KEY_FILE)
    (tmp_path / "long.pem").chmod(0o600)
    (tmp_path / "folder.pem").mkdir()
    (tmp_path / "wide.pem").write_bytes(private.read_bytes())
    (tmp_path / "wide.pem").chmod(0o640)
    for name, complaint in {
        "ec.pem": "not an Ed25519 key",
        "long.pem": "more than",
        "folder.pem": "not a plain file",
        "wide.pem": "chmod 600",
        "none.pem": "no such file",
    }.items():
        with pytest.raises(UsageError, match=complaint):
            read_private(tmp_path / name)
    public.chmod(0o600)
    with pytest.raises(UsageError, match="cannot be read"):
        read_private(public)
    # Secrets are mounted as links.
    (tmp_path / "mounted.pem").symlink_to(private)
    assert read_private(tmp_path / "mounted.pem").public.raw == read_private(private).public.raw


def line(raw: bytes) -> str:
    return f"slm-ed25519 {base64.b64encode(raw).decode()} x"


def order_divides_eight(y: int) -> bool:
    """Whether a point with this y has small order, by doubling it three times on the curve itself."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    square = (y * y - 1) * pow(d * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    assert (x * x - square) % PRIME == 0, "not on the curve"
    point = (x, y % PRIME)
    for _ in range(3):
        a, b = point
        twist = d * a * a * b * b % PRIME
        point = (
            2 * a * b * pow(1 + twist, -1, PRIME) % PRIME,
            (b * b + a * a) * pow(1 - twist, -1, PRIME) % PRIME,
        )
    return point == (0, 1)


def test_keys_of_small_order_are_refused(tmp_path: Path) -> None:
    assert all(order_divides_eight(y) for y in keys._WEAK)
    forms = {y + lift for y in keys._WEAK for lift in (0, PRIME) if y + lift < 2**255}
    assert len(forms) == 7
    for y in forms:
        for sign in (0, 1 << 255):
            with pytest.raises(UsageError, match="small order"):
                parse_public(line((y + sign).to_bytes(32, "little")), "key")


def test_what_is_no_public_key(tmp_path: Path) -> None:
    good = read_public(new_key("ci", tmp_path)[1]).line
    parse_public(good, "key")
    kind, text, name = good.split()
    # The last character before "=" has four spare bits: only one spelling is taken.
    spelling = text[:-2] + chr(ord(text[-2]) + 1) + "="
    for bad in (
        "",
        f"ssh-ed25519 {text} {name}",
        f"{kind} {text}",
        f"{kind} {text[:-4]} {name}",
        f"{kind} {text} Name",
        f"{kind} {text} {name} more",
        f"{kind} {spelling} {name}",
        f"{good}\n{good}",
    ):
        with pytest.raises(UsageError, match="key: "):
            parse_public(bad, "key")


@given(st.text(max_size=80) | st.from_regex(r"slm-ed25519 [A-Za-z0-9+/]{43}= [a-z]{1,5}", fullmatch=True))
def test_any_text_is_a_key_or_an_error_of_the_caller(text: str) -> None:
    try:
        key = parse_public(text, "key")
    except UsageError:
        return
    assert key.line == text.strip()
    assert not key.verifies(bytes(64), b"")
