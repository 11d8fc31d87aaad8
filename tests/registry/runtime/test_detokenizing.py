"""Text out of tokens as they come: with every kind of decoder, what comes in pieces is what comes at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slm_registry.runtime.detokenizing import Detokenizer, StopStrings
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE

from tests.registry.generators import byte_tokenizer
from tests.tiny_generators import bpe_text, unigram_text


def fallback_tokenizer() -> Tokenizer:
    """As Llama's: pieces of words, and a token for each byte of any other character."""
    pieces = ["<unk>", *[f"<0x{number:02X}>" for number in range(256)], "▁", "▁the", "▁a", *"abcdehilmnort", "."]
    tokenizer = Tokenizer(
        BPE({piece: at for at, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


TOKENIZERS = {
    "bytes": byte_tokenizer(),
    "byte pairs": Tokenizer.from_str(bpe_text()),
    "unigram": Tokenizer.from_str(unigram_text()),
    "byte fallback": fallback_tokenizer(),
}
TEXTS = [
    "the moon and the house",
    "東京 🦆 naïve",
    "a  b   c ",
    " der Fluß",
    "\u200d👩‍👧 e\u0301",
    "def add(first):\n\treturn",
]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_together_are_the_whole(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    whole = tokenizer.decode(ids)
    for cut in range(len(ids)):
        begin = tokenizer.decode(ids[:cut])
        if not whole.startswith(begin):
            # In the midst of a character there is no beginning.
            continue
        found = Detokenizer(tokenizer, ids[:cut])
        pieces = [found.push(token) for token in ids[cut:]]
        assert "".join(pieces) + found.flush() == whole[len(begin) :]
        assert not any("\ufffd" in piece for piece in pieces)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 256), max_size=60))
def test_bytes_that_are_no_text_come_out_too(tokens: list[int]) -> None:
    tokenizer = TOKENIZERS["bytes"]
    found = Detokenizer(tokenizer, [])
    pieces = [found.push(token) for token in tokens]
    assert "".join(pieces) + found.flush() == tokenizer.decode(tokens)
    # However long they go on, not much waits.
    assert len(found._window) <= 24 + tokens.count(256)


@pytest.mark.parametrize("context", [0, 1])
def test_a_space_hangs_on_the_token_before(context: int) -> None:
    tokenizer = TOKENIZERS["unigram"]
    ids = tokenizer.encode("the moon the", add_special_tokens=False).ids
    found = Detokenizer(tokenizer, ids[:1] if context else [])
    text = "".join(found.push(token) for token in ids[context:])
    assert text == tokenizer.decode(ids)[len(tokenizer.decode(ids[:context])) :]


@settings(deadline=None)
@given(
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_text_before_the_first_stop_string(pieces: list[str], stops: list[str]) -> None:
    whole, found, out, stopped = "", StopStrings(stops), "", False
    for piece in pieces:
        whole += piece
        text, stopped = found.push(piece)
        out += text
        # Nothing goes out that is part of a stop string, or may become part of one.
        assert whole.startswith(out)
        assert not any(stop in out for stop in stops)
        if stopped:
            break
    places = [whole.find(stop) for stop in stops if stop in whole]
    assert stopped == bool(places)
    assert out + found.flush() == (whole[: min(places)] if places else whole) or stopped
    if stopped:
        assert out == whole[: min(places)]
