"""Commands about trust: key, sign, verify, sbom, forget."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slm_registry.client import Registry
from slm_registry.errors import UsageError
from slm_registry.plumbing.files import os_errors
from slm_registry.trust.keys import PublicKey, default_key, new_key, read_private, read_public


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the commands that make keys, sign, verify and describe."""
    key = commands.add_parser("key", help="make a pair of keys, or show one")
    kinds = key.add_subparsers(dest="kind", required=True, metavar="new|show")
    new = kinds.add_parser("new", parents=[common], help="make NAME.pem (private) and NAME.pub")
    new.add_argument("name")
    new.add_argument("--into", metavar="FOLDER", default=".", help="where to write them (default: here)")
    new.set_defaults(run_alone=_new)
    show = kinds.add_parser("show", parents=[common], help="the public key and the id of a key's file")
    show.add_argument("file", help="a .pub or a .pem file")
    show.set_defaults(run_alone=_show)

    sign = commands.add_parser("sign", parents=[common], help="sign a published version")
    sign.add_argument("ref")
    sign.add_argument("--key", metavar="FILE", help="private key (default: $SLM_REGISTRY_KEY)")
    sign.add_argument("--expires", metavar="DAY", help="the last day (UTC) on which it holds, such as 2030-01-31")
    sign.add_argument("--model-signing", action="store_true", help="make an OpenSSF bundle, with an EC key")
    sign.set_defaults(run=_sign)

    verify = commands.add_parser("verify", parents=[common], help="verify a version's files and signatures")
    verify.add_argument("ref")
    verify.add_argument("--public", metavar="FILE", action="append", default=[], help="a key that must have signed it")
    verify.add_argument("--model-signing", action="store_true", help="verify the OpenSSF bundle by --public")
    verify.add_argument("--save", metavar="FILE", help="keep the OpenSSF bundle, for its own tool")
    verify.set_defaults(run=_verify)

    sbom = commands.add_parser("sbom", parents=[common], help="bill of materials, CycloneDX 1.6 JSON")
    sbom.add_argument("ref")
    sbom.set_defaults(run=_sbom)

    forget = commands.add_parser("forget", parents=[common], help="trust a log that was set back on purpose")
    forget.add_argument("name")
    forget.set_defaults(run=_forget)


def _new(options: argparse.Namespace) -> tuple[Any, str]:
    private, public = new_key(options.name, Path(options.into))
    key = read_public(public)
    return {**_key(key), "private": str(private), "file": str(public)}, f"{private} (keep it to yourself)\n{public}"


def _show(options: argparse.Namespace) -> tuple[Any, str]:
    path = Path(options.file)
    key = read_private(path).public if path.suffix == ".pem" else read_public(path)
    return _key(key), f"{key.line}\nid {key.id}"


def _sign(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    key = Path(options.key) if options.key else default_key()
    if key is None:
        raise UsageError("no key is named; give --key FILE or set SLM_REGISTRY_KEY")
    if options.model_signing:
        return _sign_openssf(registry, options, key)
    signed, created = registry.sign(options.ref, key=key, expires=options.expires)
    text = f"{'signed' if created else 'signed before:'} {signed.model}@{signed.version} {signed.digest}"
    return {**asdict(signed), "created": created}, text


def _sign_openssf(registry: Registry, options: argparse.Namespace, key: Path) -> tuple[Any, str]:
    from slm_registry.trust.openssf import put_bundle

    if options.expires:
        raise UsageError("--expires: a model-signing bundle has no such field; leave it out")
    found, folder = registry.fetch(options.ref)
    place = put_bundle(registry.store, found.digest, folder, key)
    return {**asdict(found), "bundle": place}, f"signed {found.model}@{found.version}: {place}"


def _verify(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    if options.model_signing:
        return _verify_openssf(registry, options)
    if options.save:
        raise UsageError("--save: it goes with --model-signing")
    resolved, keys = registry.verify(options.ref, options.public)
    by = ", ".join(key.name for key in keys) or "nobody, and the policy wants no signature"
    text = f"verified {resolved.model}@{resolved.version} {resolved.digest}\nsigned by {by}"
    return {**asdict(resolved), "signed_by": [_key(key) for key in keys]}, text


def _verify_openssf(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    from slm_registry.trust.openssf import check_bundle_of

    if len(options.public) != 1:
        raise UsageError("--model-signing: give one --public FILE, the signer's public key in PEM form")
    found, folder = registry.fetch(options.ref)
    data = check_bundle_of(registry.store, found.digest, folder, Path(options.public[0]))
    if options.save:
        with os_errors("write", options.save):
            Path(options.save).write_bytes(data)
    text = f"verified {found.model}@{found.version} {found.digest}\nsigned by {options.public[0]}"
    return {**asdict(found), "folder": str(folder)}, text


def _sbom(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    value = registry.sbom(options.ref)
    # Its text is a document too: everything strange in it is escaped, not replaced.
    return value, json.dumps(value, indent=2)


def _forget(registry: Registry, options: argparse.Namespace) -> tuple[Any, str]:
    known = registry.forget(options.name)
    text = f"forgotten: {options.name}" if known else f"nothing was remembered of {options.name}"
    return {"model": options.name, "forgotten": known}, text


def _key(key: PublicKey) -> dict[str, str]:
    return {"name": key.name, "id": key.id, "public": key.line}
