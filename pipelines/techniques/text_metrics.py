"""Quality of written texts and of token predictions: bits per byte, overlap with a reference, repetition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Words in a row that count as a repetition when they come again.
REPEATED_WORDS = 4


def bits_per_byte(nats: float, count: float) -> float:
    """Cross-entropy in bits a UTF-8 byte of text, comparable across tokenizers; not-a-number of no bytes."""
    return nats / math.log(2) / count if count else math.nan


def perplexity(nats: float, predictions: int) -> float:
    """exp of the mean cross-entropy a prediction: it depends on the tokenizer. Infinite beyond a float's range."""
    if not predictions:
        return math.nan
    mean = nats / predictions
    return math.exp(mean) if mean < 700 else math.inf


def exact_matches(written: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """1.0 where the text is the reference, white space around them aside: [N]."""
    return np.array([float(ours.strip() == wanted.strip()) for ours, wanted in zip(written, references, strict=True)])


def first_line_matches(written: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """1.0 where the first line is the reference's, white space around them aside: [N]."""
    return exact_matches([_first_line(text) for text in written], [_first_line(text) for text in references])


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def rouge(written: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
    """F1 of ROUGE-1, -2 and -L (Lin 2004) a row, between 0 and 1: {"rouge_1": [N], ...}.

    rouge-score's own words: letters a-z and digits, stemming off; rows in other alphabets score 0.
    """
    from rouge_score.rouge_scorer import RougeScorer

    names = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    scorer = RougeScorer(list(names.values()), use_stemmer=False)
    rows = [scorer.score(wanted, ours) for ours, wanted in zip(written, references, strict=True)]
    return {ours: np.array([row[theirs].fmeasure for row in rows]) for ours, theirs in names.items()}


def chrf_counts(written: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What chrF is computed from, a row: [N, 18]. Rows add up: the chrF of a corpus is that of its rows' sum."""
    if not written:
        return np.zeros((0, 3 * 6))
    # sacrebleu's own counts, which its public functions add up and drop; a test holds the sum against corpus_chrf.
    rows = _chrf()._extract_corpus_statistics(list(written), [list(references)])
    return np.array(rows, dtype=np.float64)


def chrf(counts: np.ndarray) -> float:
    """chrF2 between 0 and 100 (Popović 2015) of counts [18]."""
    return float(_chrf()._compute_f_score([round(one) for one in counts]))


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def bleu(written: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of a corpus, between 0 and 100 (Papineni et al. 2002), as sacrebleu computes it by default (Post 2018)."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(written), [list(references)]).score) if written else 0.0


def repetition(written: Sequence[str]) -> float:
    """Share of runs of four words that stood in the same text before; 0.0 where no text has four words."""
    repeated = total = 0
    for text in written:
        runs = Counter(_runs(text.split()))
        repeated += sum(count - 1 for count in runs.values())
        total += sum(runs.values())
    return repeated / total if total else 0.0


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + REPEATED_WORDS]) for at in range(len(words) - REPEATED_WORDS + 1)]


def longest_repeat(text: str) -> int:
    """Words of the longest stretch that is one phrase said again and again without a break, its first saying included; 0 without one."""
    words, longest = text.split(), 0
    for length in range(1, len(words) // 2 + 1):
        same = 0
        for at in range(length, len(words)):
            same = same + 1 if words[at] == words[at - length] else 0
            if same >= length:
                longest = max(longest, same + length)
    return longest
