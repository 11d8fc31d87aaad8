"""OpenSSF Model Signing bundles: made through the registry, verified by that project's own tool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from slm_registry import PolicyError, Registry, UsageError
from slm_registry.cli import main
from slm_registry.trust.openssf import check_bundle_of, put_bundle

from tests.registry.trusting import make_pair


def make_curve_pair(folder: Path, name: str, locked: KeySerializationEncryption | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    # The older form names its cipher in a header of its own.
    form = PrivateFormat.TraditionalOpenSSL if name == "old" else PrivateFormat.PKCS8
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, form, locked or NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def own_tool(folder: Path, bundle: Path, public: Path) -> subprocess.CompletedProcess[str]:
    command = ("verify", "key", str(folder), "--signature", str(bundle), "--public_key", str(public))
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *command], capture_output=True, text=True, env=environment, check=False
    )


def test_signed_here_and_verified_by_its_own_tool(
    url: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLM_REGISTRY_URL", url)
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(tmp_path / "cache"))
    private, public = make_curve_pair(tmp_path, "signer")
    assert main(["publish", str(bundle), "m"]) == 0
    assert main(["sign", "m", "--model-signing", "--key", str(private)]) == 0
    saved = tmp_path / "model.sig"
    assert main(["verify", "m", "--model-signing", "--public", str(public), "--save", str(saved)]) == 0
    folder = Registry(url, cache=tmp_path / "cache").pull("m", tmp_path / "pulled")
    done = own_tool(folder, saved, public)
    assert done.returncode == 0, done.stderr
    (folder / "README.md").write_text("changed")
    assert own_tool(folder, saved, public).returncode != 0


def test_a_wrong_one_is_refused(folder_registry: Registry, bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    private, public = make_curve_pair(tmp_path, "signer")
    stranger = make_curve_pair(tmp_path, "stranger")[1]
    store = folder_registry.store
    done = folder_registry.publish(bundle, "m", lineage={})
    folder = folder_registry.pull("m")
    with pytest.raises(PolicyError, match="there is no model-signing bundle"):
        check_bundle_of(store, done.digest, folder, public)
    place = put_bundle(store, done.digest, folder, private)
    assert check_bundle_of(store, done.digest, folder, public)
    with pytest.raises(PolicyError, match="there is no"):
        check_bundle_of(store, done.digest, folder, stranger)
    with pytest.raises(PolicyError, match="does not verify"):
        check_bundle_of(store, done.digest, other_bundle, public)
    for garbage in (b"", b"{}", b"[" * 9999, b"\xff"):
        store.put(place, garbage)
        with pytest.raises(PolicyError, match="does not verify"):
            check_bundle_of(store, done.digest, folder, public)


@pytest.mark.parametrize("name", ["new", "old"])
@pytest.mark.parametrize("encrypted", [True, False])
def test_a_passphrase_opens_what_is_encrypted_and_harms_no_other(
    folder_registry: Registry, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, encrypted: bool
) -> None:
    locked = BestAvailableEncryption("schlüssel".encode()) if encrypted else None
    private, public = make_curve_pair(tmp_path, name, locked)
    done = folder_registry.publish(bundle, "m", lineage={})
    folder = folder_registry.pull("m")
    monkeypatch.setenv("SLM_REGISTRY_KEY_PASSPHRASE", "schlüssel")
    put_bundle(folder_registry.store, done.digest, folder, private)
    assert check_bundle_of(folder_registry.store, done.digest, folder, public)
    for wrong in ("wrong", ""):
        monkeypatch.setenv("SLM_REGISTRY_KEY_PASSPHRASE", wrong)
        if encrypted:
            with pytest.raises(UsageError, match="cannot read"):
                put_bundle(folder_registry.store, done.digest, folder, private)
        else:
            put_bundle(folder_registry.store, done.digest, folder, private)


def test_other_keys_and_no_package(
    folder_registry: Registry, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = folder_registry.publish(bundle, "m", lineage={})
    folder = folder_registry.pull("m")
    ours = make_pair(tmp_path / "keys", "ci").private
    for wrong in (ours, tmp_path / "none.pem", bundle / "README.md"):
        with pytest.raises(UsageError, match="EC key"):
            put_bundle(folder_registry.store, done.digest, folder, wrong)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UsageError, match=r"slm-registry\[signing\]"):
        put_bundle(folder_registry.store, done.digest, folder, ours)
