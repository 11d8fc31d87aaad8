"""Reading model folders: every tensor must be there, none may be left over, and no code runs that the recipe does not trust."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.bundle import LINEAGE, Bundle, read_json, require_files, sha256_of, write_json
from pipelines.errors import ModelError
from pipelines.trusting import permitted

#: File name -> sha256 of the code that may run.
Trusted = Mapping[str, str]
#: What to do about a ready teacher that lacks its head.
READY = "get a complete checkpoint, or set teach.mode: finetune, which trains a fresh head"


def load_model(
    folder: Path,
    auto: str,
    *,
    fresh_head: bool = False,
    trusted: Trusted | None = None,
    remedy: str = "get a complete checkpoint",
    **changes: Any,
) -> Any:
    """Load a model in float32 by one of transformers' Auto classes, in evaluation mode.

    With `fresh_head` the folder is a pretrained body: what is outside the body may be missing, and what another task had
    there is left aside, of whatever size. Raises ModelError where the folder is damaged, lacks a tensor that it may not lack (which is
    followed by `remedy`), has one of another shape or one that nothing reads, or needs code that neither `trusted` nor the running
    recipe names.
    """
    import transformers
    from safetensors import SafetensorError

    trusted = trusted or _carried_along(folder)
    check_code(folder, trusted)
    try:
        model, found = getattr(transformers, auto).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=trusted is not None,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # transformers' own error names no tensor; ours below does
            **changes,
        )
    except SafetensorError as error:
        raise ModelError(
            f"{folder / 'model.safetensors'}: damaged or cut short ({first_line(error)}); get the file again"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder}: transformers cannot load this folder: {first_line(error)}") from error
    _check_tensors(folder, found, f"{model.base_model_prefix}." if fresh_head else "", remedy)
    return model.eval()


def _check_tensors(folder: Path, found: Mapping[str, Any], body: str, remedy: str) -> None:
    """`body` is the prefix of the tensors that must be there; empty: all must, and no other."""
    weights = folder / "model.safetensors"
    missing = {name for name in found["missing_keys"] if name.startswith(body)}
    if missing:
        raise ModelError(f"{weights}: lacks {few(missing)}; random weights would stand in for them, {remedy}")
    misfits = {
        f"{name} {list(theirs)} for {list(ours)}"
        for name, theirs, ours in found["mismatched_keys"]
        if name.startswith(body)
    }
    if misfits:
        raise ModelError(
            f"{weights}: holds {few(misfits)} that config.json asks for; they belong to different checkpoints"
        )
    extra = set(found["unexpected_keys"])
    if extra and not body:
        raise ModelError(
            f"{weights}: holds {few(extra)}, which this architecture does not read; its config.json belongs to another checkpoint"
        )


def _carried_along(folder: Path) -> Trusted | None:
    """The code of a bundle that came from a checkpoint with code of its own, as far as the running recipe permits it."""
    found = {path.name: sha256_of(path) for path in sorted(folder.glob("*.py"))}
    return {name: digest for name, digest in found.items() if permitted(name, digest)} or None


def check_code(folder: Path, trusted: Trusted | None) -> None:
    """Hold a folder's own code against what the recipe trusts.

    Raises ModelError where it needs code and none is trusted, or a file of code is not among the trusted, or altered.
    """
    code = sorted(path.name for path in folder.glob("*.py"))
    needed = "auto_map" in read_json(folder / "config.json")
    if trusted is None:
        if needed:
            raise ModelError(
                f"{folder}: this checkpoint runs code of its own ({few(set(code))}); read it, then name its files and their "
                "sha256 under trust_remote_code in the recipe, or take an architecture that transformers has"
            )
        return
    for name in code:
        digest = sha256_of(folder / name)
        if trusted.get(name) != digest:
            known = f"the recipe trusts {trusted[name]}" if name in trusted else "the recipe does not name it"
            raise ModelError(f"{folder / name}: sha256 is {digest}, {known}; read it before you trust it")
    absent = sorted(set(trusted) - set(code))
    if absent:
        raise ModelError(f"{folder}: {few(set(absent))}, which the recipe trusts, is missing")


def load_tokenizer(folder: Path) -> Any:
    """The folder's fast tokenizer. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_fast=True)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be loaded: {first_line(error)}") from error


def save_bundle(bundle: Bundle, out: Path) -> None:
    """Write model, tokenizer and lineage as a folder that plain transformers loads, without a name of this machine."""
    out.mkdir(parents=True, exist_ok=True)
    bundle.model.config.name_or_path = ""
    bundle.model.save_pretrained(out)
    bundle.tokenizer.name_or_path = ""
    bundle.tokenizer.save_pretrained(out)
    write_json(out / LINEAGE, bundle.lineage)


def require_model(folder: Path, *more: str) -> None:
    """Raise ModelError unless the folder holds a model."""
    require_files(folder, "config.json", "model.safetensors", "tokenizer.json", *more)


def check_labels(folder: Path, theirs: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise ModelError unless a ready teacher's labels are the data's, in whatever order."""
    if sorted(theirs) != sorted(wanted):
        raise ModelError(
            f"{folder}: the teacher's labels are not the data's: only the teacher has {few(set(theirs) - set(wanted))}, "
            f"only the data has {few(set(wanted) - set(theirs))}; use teach.mode: finetune, or another teacher"
        )


def first_line(error: BaseException) -> str:
    """What an error says in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def few(names: set[str]) -> str:
    """Up to five names, and how many more there are."""
    shown = ", ".join(sorted(names)[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "none"
