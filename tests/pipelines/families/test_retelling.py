"""One text in two tokenizers' tokens, on real tokenizers: a byte-level BPE and a Unigram with spaces inside its tokens."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from pipelines.bundle import Bundle
from pipelines.data.clean import Split
from pipelines.families.causal import CausalModel, beginning
from pipelines.families.retelling import Retelling, RetoldAnswers, RetoldContinuations, Told
from pipelines.families.seq2seq import TextToText
from pipelines.families.sequences import Example
from tests.tiny_generators import LINES, bpe_tokenizer, unigram_tokenizer

SOUND = [line for line in LINES if line.isascii()]  # the tiny Unigram knows no other characters by themselves
ON, ANSWER = RetoldContinuations(64), RetoldAnswers(64, 12)


def teller(tokenizer: Any) -> Bundle:
    return Bundle(None, tokenizer, {})


def starting_anew(tokenizer: Any) -> Any:
    """A template puts the end of text before each text too."""
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return tokenizer


@pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), starting_anew(bpe_tokenizer())], ids=["plain", "begun"])
def test_a_stream_is_read_as_far_as_its_tokens_say(tokenizer: Any) -> None:
    split = Split(list(LINES))
    examples = CausalModel().examples(teller(tokenizer), split, 16)
    reads = ON.reads(tokenizer, split)
    assert len(reads) == sum(len(example.classes) for example in examples)
    stream = [examples[0].ids[0], *(token for example in examples for token in example.classes)]
    text = "".join(f"{line}\n" for line in LINES)
    for at, read in enumerate(reads):
        decoded = tokenizer.decode(stream[: at + 1]).replace("<|end|><|end|>", "<|end|>").replace("<|end|>", "\n")
        begun = decoded.removeprefix("\n") if beginning(tokenizer) else decoded
        if "\N{REPLACEMENT CHARACTER}" not in begun:
            assert begun == text[:read], at


def test_answers_are_read_from_nothing_on() -> None:
    tokenizer = unigram_tokenizer()
    targets = ["the cat", "return value is None a very long answer of more tokens than there is room for"]
    split = Split(SOUND, targets=[targets[at % 2] for at in range(len(SOUND))])
    examples = TextToText(12).examples(teller(tokenizer), split, 64)
    reads = ANSWER.reads(tokenizer, split)
    assert len(reads) == sum(len(example.classes) for example in examples)
    at = start = 0
    for example, target in zip(examples, split.targets, strict=True):
        for place in range(len(example.classes)):
            read = tokenizer.decode(example.classes[:place])
            assert read.rstrip() == target[: reads[at] - start].rstrip()
            at += 1
        start += len(target) + 1


def written(tokenizer: Any, before: str, given: str, answer: str, ended: bool) -> Example:
    """A continuation as a causal teacher writes it: after a whole text, where there is one."""
    end = [tokenizer.eos_token_id]
    prompt = [*([*tokenizer(before)["input_ids"], *end] if before else []), *tokenizer(given)["input_ids"]]
    told = [*tokenizer(answer)["input_ids"], *(end if ended else [])]
    return Example([*prompt, *told], range(len(prompt) - 1, len(prompt) + len(told) - 1), told)


@pytest.mark.parametrize("before", ["", "class Reader(Base):"])
@pytest.mark.parametrize("ended", [True, False])
def test_a_continuation_is_told_again(before: str, ended: bool) -> None:
    teacher, student = bpe_tokenizer(), unigram_tokenizer()
    told = ON.told(teacher, written(teacher, before, "the cat sat on", " the mat and looked at the moon", ended))
    assert (told.given, told.answer) == ("the cat sat on", " the mat and looked at the moon")
    assert (told.begins, told.ended) == (bool(before), ended)
    again = ON.retold(teller(student), told)
    assert again is not None
    example = again.example
    assert list(example.classes) == [example.ids[place + 1] for place in example.places]
    assert (example.ids[0] == student.eos_token_id) == bool(before)
    assert (example.classes[-1] == student.eos_token_id) == ended
    words = student.decode(example.classes, skip_special_tokens=True)
    assert words == ("the mat and looked at the moon" if ended else "the mat and looked at the")  # "moon" may go on
    for place, read in zip(example.places, again.reads, strict=True):
        assert student.decode(example.ids[: place + 1], skip_special_tokens=True) == (told.given + told.answer)[:read]


def test_a_teacher_is_believed_where_it_has_read_whole_characters() -> None:
    """It writes ê in two tokens, and a text in other tokens than its tokenizer would."""
    teacher = bpe_tokenizer()
    letters = [teacher.convert_tokens_to_ids(letter) for letter in ("r", "e", "t", "u", "r", "n")]
    assert teacher("return")["input_ids"] != letters
    odd = [*letters, *teacher("ê")["input_ids"], teacher.eos_token_id]
    told = ON.told(teacher, Example([teacher.eos_token_id, *odd], range(len(odd)), odd))
    assert (told.answer, told.ended) == ("returnê", True)
    assert [read for read in told.reads if read >= 0] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert told.reads.count(-1) == 1


def test_half_a_character_at_the_end_is_left_away() -> None:
    teacher = bpe_tokenizer()
    half = teacher("moon ê")["input_ids"][:-1]
    told = ON.told(teacher, Example([teacher.eos_token_id, *half], range(len(half)), half))
    assert told.answer == "moon "
    assert ON.retold(teller(teacher), Told("", True, "x", False, [0])) is None


@pytest.mark.parametrize("ended", [True, False])
def test_an_answer_is_told_again(ended: bool) -> None:
    teacher, student = unigram_tokenizer(), bpe_tokenizer()
    source = teacher("once upon a time")["input_ids"]
    answer = [*teacher("the cat sat on the mat", add_special_tokens=False)["input_ids"], *([1] if ended else [])]
    told = ANSWER.told(teacher, Example(source, range(len(answer)), answer))
    assert (told.given, told.answer, told.ended) == ("once upon a time", "the cat sat on the mat", ended)
    again = RetoldAnswers(64, 32).retold(teller(student), told)
    assert again is not None
    assert student.decode(again.example.ids) == "once upon a time"
    classes = again.example.classes
    assert (classes[-1] == student.eos_token_id) == ended
    whole = student("the cat sat on the mat")["input_ids"]
    assert list(classes) == ([*whole, student.eos_token_id] if ended else whole[:-1])
    for place, read in enumerate(again.reads):
        assert student.decode(classes[:place]) == told.answer[:read]
    assert len(again.reads) == len(classes)


@pytest.mark.parametrize("retelling", [ON, ANSWER], ids=["continuations", "answers"])
def test_what_is_told_again_fits_the_longest_text(retelling: Retelling) -> None:
    told = Told("", True, "the cat sat on the mat " * 40, True, [])
    again = retelling.retold(teller(bpe_tokenizer()), told)
    assert again is not None
    assert again.example.length <= 64
    assert len(again.reads) == len(again.example.classes)
