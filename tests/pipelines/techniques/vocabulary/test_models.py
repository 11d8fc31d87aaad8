"""The model's side: rows of every architecture, ties, biases, padding rows, and what plain transformers reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from pipelines.config import Vocabulary
from pipelines.errors import ModelError
from pipelines.techniques.vocabulary import check_vocabulary, ids_in_use, kept_tokens, prune_vocabulary
from tests.tiny_generators import LINES, MAKERS, SEQ2SEQ

TEXTS = list(LINES[:3])
USED = Vocabulary(min_count=1, keep_first=0)


def auto(kind: str) -> Any:
    return hf.AutoModelForSeq2SeqLM if kind in SEQ2SEQ else hf.AutoModelForCausalLM


def loaded(folder: Path, kind: str) -> tuple[Any, Any]:
    MAKERS[kind](folder, kind)
    tokenizer = hf.PreTrainedTokenizerFast.from_pretrained(folder)
    return auto(kind).from_pretrained(folder).eval(), tokenizer


def logits(model: Any, tokenizer: Any) -> list[Tensor]:
    with torch.inference_mode():
        rows = [torch.tensor([tokenizer(text)["input_ids"]]) for text in TEXTS]
        more = [{"decoder_input_ids": ids} if model.config.is_encoder_decoder else {} for ids in rows]
        return [model(input_ids=ids, **extra).logits for ids, extra in zip(rows, more, strict=True)]


def same(ours: list[Tensor], theirs: list[Tensor], kept: list[int] | None = None) -> bool:
    chosen = slice(None) if kept is None else kept
    pairs = zip(ours, theirs, strict=True)
    return all(torch.allclose(our, their[..., chosen], atol=1e-6, rtol=1e-6) for our, their in pairs)


@pytest.mark.parametrize("padded", [0, 7], ids=["exact", "padded"])
@pytest.mark.parametrize("kind", MAKERS)
def test_logits_of_kept_tokens_stay(kind: str, padded: int, tmp_path: Path) -> None:
    model, tokenizer = loaded(tmp_path / "whole", kind)
    if padded:
        model.resize_token_embeddings(len(tokenizer) + padded, mean_resizing=False)
    if kind == "bart":
        model.final_logits_bias += torch.randn_like(model.final_logits_bias)
    before = logits(model, tokenizer)
    kept = kept_tokens(tokenizer, tokenizer(TEXTS)["input_ids"], USED, ids_in_use(model))
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    smaller = prune_vocabulary(model, tokenizer, kept)
    check_vocabulary(tokenizer, smaller, kept, list(LINES))
    assert len(kept) < len(tokenizer)
    assert same(logits(model, smaller), before, kept)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied
    model.save_pretrained(tmp_path / "small")
    smaller.save_pretrained(tmp_path / "small")
    again, report = auto(kind).from_pretrained(tmp_path / "small", output_loading_info=True)
    assert not any(report.values()), report
    assert again.config.vocab_size == again.get_input_embeddings().weight.shape[0] == len(kept)
    assert same(logits(again.eval(), hf.PreTrainedTokenizerFast.from_pretrained(tmp_path / "small")), before, kept)


def test_it_still_learns_and_generates(tmp_path: Path) -> None:
    for kind in ("mixtral", "bart"):
        model, tokenizer = loaded(tmp_path / kind, kind)
        kept = kept_tokens(tokenizer, tokenizer(TEXTS)["input_ids"], USED, ids_in_use(model))
        smaller = prune_vocabulary(model, tokenizer, kept)
        ids = torch.tensor([smaller(TEXTS[0])["input_ids"]])
        model(input_ids=ids, labels=ids).loss.backward()
        assert model.get_input_embeddings().weight.grad.abs().sum() > 0
        assert model.generate(ids, max_new_tokens=4).max() < len(kept)


def test_every_id_of_the_configs_is_renumbered(tmp_path: Path) -> None:
    model, tokenizer = loaded(tmp_path, "llama")
    kept = kept_tokens(tokenizer, tokenizer(TEXTS)["input_ids"], USED, [300])
    gone = next(at for at in range(len(tokenizer)) if at not in kept)
    new = {old: at for at, old in enumerate(kept)}
    one, two, three = kept[-1], kept[-2], kept[-3]
    model.config.eos_token_id = model.generation_config.eos_token_id = [one, 0]
    model.config.pad_token_id = two
    model.generation_config.forced_bos_token_id = three
    model.generation_config.decoder_start_token_id = 9999
    model.generation_config.suppress_tokens = [gone, one]
    model.generation_config.begin_suppress_tokens = [gone]
    model.generation_config.bad_words_ids = [[one, gone], [two, three]]
    model.generation_config.force_words_ids = [[[one], [two, three]]]
    model.generation_config.sequence_bias = [[[one, two], -1.5], [[gone], 2.0]]
    assert {one, two, three, 0} <= ids_in_use(model) and 9999 not in ids_in_use(model)
    prune_vocabulary(model, tokenizer, kept)
    config, wanted = model.generation_config, [new[one], 0]
    assert config.eos_token_id == model.config.eos_token_id == wanted
    assert model.config.pad_token_id == new[two] and config.forced_bos_token_id == new[three]
    assert config.decoder_start_token_id == 9999
    assert config.suppress_tokens == [new[one]] and config.begin_suppress_tokens is None
    assert config.bad_words_ids == [[new[two], new[three]]]
    assert config.force_words_ids == [[[new[one]], [new[two], new[three]]]]
    assert config.sequence_bias == [[[new[one], new[two]], -1.5]]


def test_an_id_in_use_stays_or_is_named(tmp_path: Path) -> None:
    model, tokenizer = loaded(tmp_path, "t5")
    rows = tokenizer(TEXTS)["input_ids"]
    gone = next(at for at in range(len(tokenizer)) if at not in kept_tokens(tokenizer, rows, USED))
    model.generation_config.eos_token_id = [1, gone]
    assert gone in kept_tokens(tokenizer, rows, USED, ids_in_use(model))
    message = rf"GenerationConfig\.eos_token_id is {gone}, which has no token in the pruned vocabulary"
    with pytest.raises(ModelError, match=message):
        prune_vocabulary(model, tokenizer, kept_tokens(tokenizer, rows, USED))


def test_a_token_without_a_row_is_named(tmp_path: Path) -> None:
    model, tokenizer = loaded(tmp_path, "gpt2")
    tokenizer.add_tokens(["<new>"])
    kept = kept_tokens(tokenizer, tokenizer(TEXTS)["input_ids"], USED)
    with pytest.raises(ModelError, match=r"the tokenizer has a token of id 320, the model 320 embedding rows; resize"):
        prune_vocabulary(model, tokenizer, kept)


def test_vocabularies_of_two_sizes_are_refused(tmp_path: Path) -> None:
    model, tokenizer = loaded(tmp_path, "gpt2")
    model.lm_head = nn.Linear(32, 300, bias=False)
    kept = kept_tokens(tokenizer, tokenizer(TEXTS)["input_ids"], USED)
    with pytest.raises(ModelError, match=r"embeds 320 tokens, but has a vocabulary tensor \(300, 32\)"):
        prune_vocabulary(model, tokenizer, kept)


def test_positions_counted_from_the_padding_token_do_not_move(tmp_path: Path) -> None:
    _, tokenizer = loaded(tmp_path, "gpt2")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    kept = kept_tokens(tokenizer, tokenizer(TEXTS)["input_ids"], USED)
    model = hf.RobertaModel(hf.RobertaConfig(vocab_size=len(tokenizer), **sizes, **ids))
    prune_vocabulary(model, tokenizer, kept)
    moved = hf.RobertaModel(hf.RobertaConfig(vocab_size=len(tokenizer), **sizes, **ids | {"pad_token_id": kept[-1]}))
    with pytest.raises(
        ModelError, match=rf"positions are counted from the padding token's id {kept[-1]}, which would move"
    ):
        prune_vocabulary(moved, tokenizer, kept)
