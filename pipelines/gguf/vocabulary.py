"""A tokenizer as GGUF's metadata: what llama.cpp needs to cut a text into the same tokens."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from pipelines.errors import ModelError
from pipelines.families.llama_cpp import Facts

#: GGUF's kinds of tokens.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

#: Expression that cuts a text before byte-level BPE -> what llama.cpp calls it (each is one of its own table, llama-vocab.cpp).
EXPRESSIONS: dict[str, str] = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False}
_SPACE = "▁"


def vocabulary_facts(tokenizer: Any, rows: int) -> Facts:
    """Metadata under GGUF's names, without `tokenizer.ggml.`; `rows` is the height of the model's embedding.

    Rows that no token has get a name of their own. Raises ModelError for a tokenizer that llama.cpp would read otherwise.
    """
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    model = whole["model"]
    if model["type"] != "BPE" or model.get("dropout") or model.get("end_of_word_suffix"):
        raise ModelError(
            f"tokenizer.json: {model['type']} is not carried over to GGUF; llama.cpp reads BPE's as here written"
        )
    names = {index: token for token, index in model["vocab"].items()}
    kinds = dict.fromkeys(names, NORMAL)
    for token in whole["added_tokens"]:
        names[token["id"]] = token["content"]
        kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    if max(names) >= rows:
        raise ModelError(
            f"tokenizer.json: token {names[max(names)]!r} is number {max(names)}, the embedding has {rows} rows; the two belong to different models"
        )
    spm = bool(model.get("byte_fallback"))
    facts = _pieces(whole, names, kinds) if spm else _byte_level(whole)
    facts |= {
        "tokens": [names.get(index, f"[PAD{index}]") for index in range(rows)],
        "token_type": [kinds.get(index, UNUSED) for index in range(rows)],
    }
    if spm:
        facts["scores"] = _scores(model, names, rows)
    return facts | _special(tokenizer)


def _byte_level(whole: dict[str, Any]) -> Facts:
    """Byte-level BPE: merges, and the name of the expression that cuts before them."""
    normal = whole["normalizer"]
    if normal is not None and normal != {"type": "NFC"}:
        raise ModelError(
            f"tokenizer.json: normalizer {normal['type']!r} before byte-level BPE, which llama.cpp does not apply"
        )
    name = _expression(whole["pre_tokenizer"] or {"type": "none"})
    if (name == "llama-bpe") != bool(whole["model"].get("ignore_merges")):
        raise ModelError(
            f"tokenizer.json: ignore_merges is {name != 'llama-bpe'}, llama.cpp takes the opposite for {name}"
        )
    merges = [" ".join(pair) for pair in _merges(whole["model"])]
    if not merges:
        raise ModelError("tokenizer.json: no merges; llama.cpp wants at least one")
    return {"model": "gpt2", "pre": name, "merges": merges}


def _expression(cutter: dict[str, Any]) -> str:
    if _plain(cutter) == _BYTE_LEVEL | {"use_regex": True}:
        return "gpt-2"
    parts = [_plain(part) for part in cutter.get("pretokenizers", [])]
    if parts == [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL | {"use_regex": True}]:
        return "smollm"
    if len(parts) == 2 and parts[0]["type"] == "Split" and parts[1] == _BYTE_LEVEL | {"use_regex": False}:
        rule = parts[0]["pattern"].get("Regex")
        if rule in EXPRESSIONS and parts[0]["behavior"] == "Isolated" and not parts[0]["invert"]:
            return EXPRESSIONS[rule]
    raise ModelError(
        f"tokenizer.json: llama.cpp cannot be told of the pre_tokenizer {json.dumps(cutter)[:200]}; "
        f"known are GPT-2's, SmolLM's and {', '.join(EXPRESSIONS.values())}"
    )


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "trim_offsets"}


def _pieces(whole: dict[str, Any], names: dict[int, str], kinds: dict[int, int]) -> Facts:
    """SentencePiece's BPE: spaces are pieces, bytes stand in for what no piece spells."""
    model = whole["model"]
    for index, name in names.items():
        if len(name) == 6 and name.startswith("<0x") and kinds[index] == NORMAL:
            kinds[index] = BYTE
        if name == model.get("unk_token"):
            kinds[index] = UNKNOWN
    return {"model": "llama", "pre": "default", "add_space_prefix": _space_first(whole)}


def _space_first(whole: dict[str, Any]) -> bool:
    """Whether a text begins with a space of the tokenizer's own; ModelError for anything that is no plain marking of spaces."""
    normal, cutter = whole["normalizer"], whole["pre_tokenizer"]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    if (
        normal == {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, replace]}
        and cutter is None
    ):
        return True
    if normal == replace and cutter in (None, split):
        return False
    if normal is None and cutter is not None and cutter["type"] == "Metaspace" and not cutter.get("split", True):
        return bool(cutter["prepend_scheme"] != "never")
    raise ModelError(
        f"tokenizer.json: llama.cpp cannot be told of the normalizer {json.dumps(normal)[:120]} with the pre_tokenizer {json.dumps(cutter)[:120]}"
    )


def _scores(model: dict[str, Any], names: dict[int, str], rows: int) -> list[float]:
    """A piece's score is its first merge's place: llama.cpp joins the two neighbours whose piece scores highest.

    Raises ModelError where that is not the order of the merges, as it is in every vocabulary that came from SentencePiece.
    """
    merges, known = _merges(model), set(model["vocab"])
    joined = [first + second for first, second in merges]
    ranks = {piece: rank for rank, piece in reversed(list(enumerate(joined)))}
    runs = 1 + sum(piece != following for piece, following in pairwise(joined))
    pairs = set(map(tuple, merges))
    whole = all(
        (piece[:cut], piece[cut:]) in pairs
        for piece in ranks
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    )
    if merges and (runs != len(ranks) or not whole):
        raise ModelError(
            "tokenizer.json: its merges are not those of a SentencePiece vocabulary, llama.cpp would cut otherwise"
        )
    return [-float(ranks.get(names.get(index, ""), -1) + 1) for index in range(rows)]


def _merges(model: dict[str, Any]) -> list[list[str]]:
    return [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in model["merges"]]


def _special(tokenizer: Any) -> Facts:
    """Ids of special tokens, which of them stand around every text, and the chat template."""
    facts: Facts = {}
    for key, kind in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (index := getattr(tokenizer, f"{key}_token_id")) is not None:
            facts[f"{kind}_token_id"] = index
    inside = tokenizer("a", add_special_tokens=False)["input_ids"]
    around = tokenizer("a")["input_ids"]
    first, last = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    ways = [(before, after) for before in (False, True) for after in (False, True)]
    way = next((way for way in ways if around == first * way[0] + inside + last * way[1]), None)
    if way is None:
        raise ModelError(f"tokenizer.json: a text becomes {around}; llama.cpp can add only a first and a last token")
    facts |= {"add_bos_token": way[0], "add_eos_token": way[1]}
    if isinstance(template := getattr(tokenizer, "chat_template", None), str):
        facts["chat_template"] = template
    return facts
