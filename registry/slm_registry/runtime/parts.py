"""What a bundle's files are made into: settings, a tokenizer, a session that computes with numpy arrays."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slm_registry.errors import CorruptError, UsageError
from slm_registry.plumbing.files import open_regular, os_errors
from slm_registry.plumbing.jsonio import parse_object

#: The session setting of onnxruntime under which int8 products do not saturate.
EXACT_INTEGERS = "session.x64quantprecision"

# Tokenizers without a limit write a number like 1e30.
_NO_LIMIT = 1_000_000
_DEFAULT_LENGTH = 512
# These count positions from pad_token_id + 1, so that many of them are no room for tokens.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "xlm-roberta-xl"}


def read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """A settings file of a bundle, or `missing` where there is none. Raises UsageError, CorruptError where it is no JSON object."""
    if not path.exists():
        if missing is not None:
            return missing
        raise UsageError(f"{path} is missing; a bundle holds config.json, tokenizer.json and model.onnx")
    with os_errors("read", path), open_regular(path) as file:
        return parse_object(file.read((1 << 20) + 1), str(path))


def pad_id(config: Mapping[str, Any]) -> int:
    """The token that fills a batch up. Raises UsageError where config.json names no such number."""
    value = config.get("pad_token_id")
    if value is None:
        return 0
    if type(value) is not int or abs(value) >= 1 << 31:
        raise UsageError(f"config.json: pad_token_id is {str(value)[:40]!r}; it must be a token's number, or null")
    return value


def length_limit(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], asked: int | None) -> int:
    """How many tokens of a text count: the smallest of the limits that are given. Raises UsageError below 3."""
    if asked is not None and (type(asked) is not int or asked < 3):
        raise UsageError(f"max_length is {asked!r}; give a whole number of tokens, 3 or more")
    # GPT-2 and GPT-J have a name of their own.
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if isinstance(positions, int) and config.get("model_type") in _OFFSET_POSITIONS:
        positions -= pad_id(config) + 1
    limits = [positions, tokenizer_config.get("model_max_length"), asked]
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _NO_LIMIT]
    return min(known, default=_DEFAULT_LENGTH)


def load_tokenizer(path: Path, max_length: int | None) -> Any:
    """A fast tokenizer that cuts at `max_length` tokens, if any, and pads nothing. Raises UsageError, CorruptError."""
    from tokenizers import Tokenizer

    if not path.is_file():
        raise UsageError(f"{path} is missing; save the model's fast tokenizer into the folder")
    with tokenizing(f"{path}: not a tokenizer"):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        if max_length is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(max_length)
    return tokenizer


def encoding(tokenizer: Any, text: str | list[str]) -> Any:
    """A text, or its words, as the tokenizer's own record, special tokens included. Raises CorruptError."""
    with tokenizing("the tokenizer cannot encode these texts"):
        return tokenizer.encode(text, is_pretokenized=not isinstance(text, str))


def encoded(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text. Raises CorruptError."""
    return list(encoding(tokenizer, text).ids)


@contextlib.contextmanager
def tokenizing(problem: str) -> Iterator[None]:
    """Make a CorruptError of what a tokenizer raises."""
    try:
        yield
    except BaseException as error:
        # A panic of its Rust code is no Exception, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptError(f"{problem}: {error}") from error


def load_session(path: Path, threads: int) -> Any:
    """An ONNX file ready to run on the CPU, each call with `threads`. Raises UsageError, CorruptError."""
    # Otherwise onnxruntime writes a device id below the user's home on import. It must be set before that import, and
    # somebody who set it to another value is not overruled.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    if not path.is_file():
        raise UsageError(f"{path} is missing; export the model to ONNX into the folder")
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=session_options(threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise CorruptError(f"{path}: onnxruntime cannot load it: {error}") from error


def session_options(threads: int) -> Any:
    """How onnxruntime runs a model here: each call with `threads`, and with the same integers on every processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # x86 without VNNI adds u8 times s8 in pairs that saturate at 16 bits: an int8 model would answer otherwise there than
    # where it was measured. With this onnxruntime makes such weights u8 on those processors, and on no other.
    options.add_session_config_entry(EXACT_INTEGERS, "1")
    # What goes wrong comes as an exception; it need not stand on standard error too.
    options.log_severity_level = 4
    return options
