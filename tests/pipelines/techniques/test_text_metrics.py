from __future__ import annotations

import math
from collections import Counter

import pytest
import sacrebleu

from pipelines.techniques.text_metrics import (
    bits_per_byte,
    bleu,
    chrf,
    chrf_counts,
    exact_matches,
    first_line_matches,
    longest_repeat,
    perplexity,
    repetition,
    rouge,
)


def test_a_coin_a_byte_costs_one_bit_a_byte() -> None:
    """Eight bytes, each predicted with probability 1/2: 1 bit a byte; as two tokens of 1/16 each the same."""
    assert bits_per_byte(8 * math.log(2), 8) == pytest.approx(1.0)
    assert bits_per_byte(2 * math.log(16), 8) == pytest.approx(1.0)
    assert math.isnan(bits_per_byte(1.0, 0))


def test_perplexity_is_the_number_of_equal_choices() -> None:
    assert perplexity(5 * math.log(7), 5) == pytest.approx(7)
    assert perplexity(1e6, 1) == math.inf
    assert math.isnan(perplexity(0.0, 0))


def test_matches_look_past_white_space_around() -> None:
    assert exact_matches(["a b ", "a  b", "A b"], ["a b", "a b", "a b"]).tolist() == [1, 0, 0]
    assert first_line_matches([" x = 1\ny = 2", "x = 1"], ["x = 1\nz = 3", "x = 2"]).tolist() == [1, 0]


def test_rouge_of_a_hand_computed_row() -> None:
    """`the cat sat` against `the cat on the mat`: 2 of 3 and 2 of 5 words, 1 of 2 and 1 of 4 pairs, `the cat` in order."""
    scores = rouge(["the cat sat"], ["the cat on the mat"])
    assert scores["rouge_1"][0] == pytest.approx(2 * (2 / 3) * (2 / 5) / (2 / 3 + 2 / 5))
    assert scores["rouge_2"][0] == pytest.approx(2 * (1 / 2) * (1 / 4) / (1 / 2 + 1 / 4))
    assert scores["rouge_l"][0] == pytest.approx(0.5)


def test_rouge_l_wants_the_order_and_rouge_1_does_not() -> None:
    scores = rouge(["c b a"], ["a b c"])
    assert scores["rouge_1"][0] == 1.0
    assert scores["rouge_l"][0] == pytest.approx(1 / 3)


def slow_chrf(written: list[str], references: list[str]) -> float:
    """chrF2 from its definition: mean over orders 1 to 6 of precision and of recall, beta 2, spaces left out."""
    precisions, recalls = [], []
    for order in range(1, 7):
        same = ours = theirs = 0
        for text, reference in zip(written, references, strict=True):
            grams = [
                Counter(plain[at : at + order] for at in range(len(plain) - order + 1))
                for plain in ("".join(text.split()), "".join(reference.split()))
            ]
            same += sum((grams[0] & grams[1]).values())
            ours, theirs = ours + sum(grams[0].values()), theirs + sum(grams[1].values())
        if ours and theirs:
            precisions.append(same / ours)
            recalls.append(same / theirs)
    p, r = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 100 * 5 * p * r / (4 * p + r) if p + r else 0.0


def test_chrf_of_summed_rows_is_that_of_the_corpus_and_of_the_definition() -> None:
    written = ["the cat sat on the mat", "größer als", "hello there"]
    references = ["the cat is on the mat", "kleiner als das", "hello world"]
    counts = chrf_counts(written, references)
    assert chrf(counts.sum(axis=0)) == pytest.approx(sacrebleu.corpus_chrf(written, [references]).score)
    assert chrf(counts.sum(axis=0)) == pytest.approx(slow_chrf(written, references))
    assert chrf(counts[0]) == pytest.approx(sacrebleu.sentence_chrf(written[0], [references[0]]).score)
    assert chrf_counts([], []).shape == (0, counts.shape[1])


def test_bleu_of_a_hand_computed_corpus() -> None:
    """`a b c d e` against `a b c d f`: 4/5, 3/4, 2/3 and 1/2 of the runs of 1 to 4 words, no brevity penalty."""
    assert bleu(["a b c d e"], ["a b c d f"]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))
    assert bleu(["a b c d"], ["a b c d e f g h"]) == pytest.approx(100 * math.exp(1 - 8 / 4))
    assert bleu([], []) == 0.0


def test_repetition_counts_runs_that_came_before() -> None:
    """`a b c d a b c d` has five runs of four, of which the last came before."""
    assert repetition(["a b c d a b c d"]) == pytest.approx(1 / 5)
    assert repetition(["a b c d a b c d", "e f g h i"]) == pytest.approx(1 / 7)
    assert repetition(["too short"]) == 0.0
    assert repetition(["a b c d", "a b c d"]) == 0.0  # another text may say the same


def slow_longest(text: str) -> int:
    """Every stretch, every length of the phrase in it."""
    words = text.split()
    found = [
        stop - start
        for start in range(len(words))
        for stop in range(start + 2, len(words) + 1)
        for size in range(1, (stop - start) // 2 + 1)
        if all(words[at] == words[at - size] for at in range(start + size, stop))
    ]
    return max(found, default=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", 0), ("a b c", 0), ("a a", 2), ("x a b a b a y", 5), ("the end the end the end", 6), ("a b c a b d", 0)],
)
def test_the_longest_repeat(text: str, words: int) -> None:
    assert longest_repeat(text) == words == slow_longest(text)
