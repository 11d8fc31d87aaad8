from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from pipelines.errors import ModelError
from pipelines.techniques.vocabulary.bpe import Bpe
from pipelines.techniques.vocabulary.pieces import BYTES
from tests.pipelines.techniques.vocabulary.cores import agrees, cut
from tests.tiny_generators import bpe_text

TEXTS = st.text(alphabet="abcdé", max_size=12)


@st.composite
def cores(draw: Any) -> tuple[Any, list[str]]:
    """A BPE of random merges in random order over four letters, and some of its tokens."""
    prefix, suffix = draw(st.sampled_from(["", "##"])), draw(st.sampled_from(["", "</w>"]))
    fallback = draw(st.booleans())
    heads = sorted({front + letter + end for letter in "abcd" for front in {"", prefix} for end in {"", suffix}})
    tokens, merges = list(heads), []
    for _ in range(draw(st.integers(0, 14))):
        first = draw(st.sampled_from([token for token in tokens if not (suffix and token.endswith(suffix))]))
        second = draw(st.sampled_from([token for token in tokens if token.startswith(prefix)]))
        if (first, second) not in merges:
            merges.append((first, second))
            tokens.append(first + second[len(prefix) :])
    words = draw(st.lists(st.text(alphabet="abcd", min_size=2, max_size=5), max_size=3))
    spelled = sorted(BYTES) if fallback else ["<unk>"]
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys([*spelled, *tokens, *words]))}
    named = {
        "continuing_subword_prefix": prefix,
        "end_of_word_suffix": suffix,
        "unk_token": "" if fallback else "<unk>",
    }
    core = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=draw(st.permutations(merges)),
            byte_fallback=fallback,
            ignore_merges=draw(st.booleans()),
            **{name: value for name, value in named.items() if value},
        )
    )
    affixes = [decoders.Replace("##", ""), decoders.Replace("</w>", "")]
    core.decoder = decoders.Sequence([*affixes, decoders.ByteFallback(), decoders.Fuse()])
    return core, draw(st.lists(st.sampled_from(tokens + words), max_size=6))


@settings(max_examples=400, deadline=None)
@given(cores(), st.lists(TEXTS, min_size=1, max_size=12))
def test_any_tokens_may_stay(drawn: tuple[Any, list[str]], texts: list[str]) -> None:
    core, wanted = drawn
    smaller, kept = cut(core, wanted)
    spelled = [token.removeprefix("##").removesuffix("</w>") for token in wanted]
    for text in [*texts, *spelled, "".join(spelled), "".join(reversed(spelled))]:
        agrees(core, smaller, kept, text)


def bare(merges: list[tuple[str, str]], **changes: Any) -> Bpe:
    letters = ["<unk>", *"abcd"]
    tokens = dict.fromkeys(letters + [first + second for first, second in merges])
    entry = {"vocab": {token: at for at, token in enumerate(tokens)}, "merges": [list(merge) for merge in merges]}
    return Bpe(entry | {"unk_token": "<unk>"} | changes)


def test_a_token_keeps_what_builds_it_and_no_other_way_to_it() -> None:
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("abc", "d"), ("c", "d")]
    pieces = bare(merges)
    assert pieces.needed({"abcd"}) == {"<unk>", *"abcd", "ab", "abc", "abcd"}
    stay = {pieces.tokens()[token]: new for new, token in enumerate(["<unk>", *"abcd", "ab", "abc", "abcd"])}
    smaller = pieces.cut(stay)
    assert smaller["merges"] == [["a", "b"], ["ab", "c"], ["abc", "d"]]
    assert smaller["vocab"] == {"<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "ab": 5, "abc": 6, "abcd": 7}


def test_merges_of_bytes_are_kept_with_what_they_make() -> None:
    vocabulary = {token: at for at, token in enumerate([*sorted(BYTES), "<0xE6><0x9D>", "<0xE6><0x9D><0xB1>", "a"])}
    merges = [("<0xE6>", "<0x9D>"), ("<0xE6><0x9D>", "<0xB1>")]
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    smaller, kept = cut(core, {"<0xE6><0x9D><0xB1>"})
    assert agrees(core, smaller, kept, "a東") and len(core.encode("東").ids) == 1


def test_a_word_that_no_characters_spell_stays() -> None:
    entry = {"vocab": {"a": 0, "é!": 1, "aa": 2}, "merges": [["a", "a"]], "ignore_merges": True}
    assert Bpe(entry).needed(set()) == {"a", "é!"}


def test_merges_written_as_text_are_read() -> None:
    entry = {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    assert Bpe(entry).cut({0: 0, 1: 1, 2: 2})["merges"] == [["a", "b"]]


def test_random_cuts_are_refused() -> None:
    with pytest.raises(ModelError, match=r"BPE with dropout 0\.1 cuts at random; set model\.dropout to null"):
        bare([], dropout=0.1)


def test_all_bytes_stay() -> None:
    core = Tokenizer.from_str(bpe_text())
    smaller, kept = cut(core, set())
    assert len(kept) == 258 == smaller.get_vocab_size()
    assert not json.loads(smaller.to_str())["model"]["merges"]
    assert smaller.decode(smaller.encode("東京, größer").ids) == "東京, größer"
