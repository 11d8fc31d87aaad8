from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from pipelines.techniques.vocabulary.pieces import BYTES
from tests.pipelines.techniques.vocabulary.cores import agrees, cut

TEXTS = st.text(alphabet="abcdé", max_size=12)


def unigram(scores: dict[str, float], fallback: bool = False) -> Any:
    pieces = [("<unk>", 0.0), *((byte, -9.0) for byte in sorted(BYTES) if fallback), *scores.items()]
    core = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=fallback))
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return core


@st.composite
def cores(draw: Any) -> tuple[Any, list[str]]:
    """A Unigram of random words with few different scores, so that ties are common, and some of its tokens."""
    words = draw(st.lists(st.text(alphabet="abcd", min_size=1, max_size=4), min_size=1, max_size=14, unique=True))
    scores = {word: float(draw(st.integers(-30, -1))) / draw(st.sampled_from([1, 30])) for word in words}
    return unigram(scores, draw(st.booleans())), draw(st.lists(st.sampled_from(words), max_size=8))


@settings(max_examples=400, deadline=None)
@given(cores(), st.lists(TEXTS, min_size=1, max_size=12))
def test_any_tokens_may_stay(drawn: tuple[Any, list[str]], texts: list[str]) -> None:
    core, wanted = drawn
    smaller, kept = cut(core, wanted)
    for text in texts:
        agrees(core, smaller, kept, text)


def test_the_cost_of_the_unknown_stays() -> None:
    # Without "dd" an unknown character would cost 20 instead of 110, and <unk> abcd less than the three tokens.
    core = unigram({"éa": -10.0, "bc": -10.0, "abcd": -1.0, "dd": -100.0} | dict.fromkeys("abcd", -10.0))
    smaller, kept = cut(core, {"bc", "abcd"})
    assert core.encode("éabcd").tokens == ["éa", "bc", "d"]
    assert agrees(core, smaller, kept, "éabcd")


def test_a_token_whose_characters_have_no_token_stays_unless_bytes_spell_it() -> None:
    scores = {"a": -1.0, "aa": -1.5, "東京": -3.0, "a東": -2.0}
    for fallback in (False, True):
        core = unigram(scores, fallback)
        smaller, kept = cut(core, set())
        assert ("a東" in smaller.get_vocab()) is not fallback
        assert smaller.decode(smaller.encode("aa東京").ids) == "aa東京"
        assert "aa" not in smaller.get_vocab()
        assert agrees(core, smaller, kept, "a")
