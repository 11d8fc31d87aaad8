"""Models of fresh weights, and tokenizers trained on the training text."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from typing import Any

import torch

from pipelines.bundle import Bundle
from pipelines.config import FreshModel, FreshStudent, FreshTokenizer
from pipelines.errors import ModelError
from pipelines.families.loading import first_line

#: Special tokens of a tokenizer that the factory trains. The end of one text is the beginning of the next.
END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
#: What architectures call their longest sequence.
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")


def train_tokenizer(wanted: FreshTokenizer, texts: Sequence[str], max_length: int) -> Any:
    """A fast tokenizer of at most `vocab_size` tokens; the same texts give the same one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if wanted.kind == "byte_bpe":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=wanted.vocab_size,
            special_tokens=[PAD, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        unknown = {}
    else:
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer = pre_tokenizers.Metaspace()
        core.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=wanted.vocab_size,
            special_tokens=[PAD, END, UNKNOWN],
            unk_token=UNKNOWN,
            show_progress=False,
        )
        unknown = {"unk_token": UNKNOWN}
    core.train_from_iterator(texts, trainer)
    if wanted.kind == "unigram":
        core.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", special_tokens=[(END, core.token_to_id(END))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        model_max_length=max_length,
        padding_side="left" if wanted.kind == "byte_bpe" else "right",
        **unknown,
    )


def fresh_model(auto: str, choice: FreshModel, tokenizer: Any, max_length: int) -> Bundle:
    """A model built from an architecture's name and sizes.

    Raises ModelError where transformers does not know the architecture, or a size.
    """
    from transformers import CONFIG_MAPPING

    if choice.architecture not in CONFIG_MAPPING:
        near = difflib.get_close_matches(choice.architecture, list(CONFIG_MAPPING), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ModelError(f"{choice.place}.architecture: transformers has no architecture {choice.architecture!r}{hint}")
    kind = CONFIG_MAPPING[choice.architecture]
    _check_keys(f"{choice.place}.sizes", choice.sizes, kind())
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    config = kind(**{**choice.sizes, **ids, "vocab_size": len(tokenizer)})
    room = next((getattr(config, name) for name in POSITIONS if hasattr(config, name)), max_length)
    if room < max_length:
        raise ModelError(
            f"task.max_length is {max_length}, longer than the {room} positions that {choice.place}.sizes gives the model; lower the one or raise the other"
        )
    return Bundle(_built(auto, config), tokenizer, {})


def resized_model(auto: str, teacher: Bundle, choice: FreshStudent) -> Bundle:
    """A model of the teacher's architecture with some sizes changed, fresh weights. Raises ModelError for an unknown size."""
    _check_keys("distill.student.sizes", choice.sizes, teacher.model.config)
    config = type(teacher.model.config).from_dict(teacher.model.config.to_dict() | choice.sizes)
    return Bundle(_built(auto, config), copy.deepcopy(teacher.tokenizer), teacher.lineage)


def _check_keys(where: str, sizes: dict[str, Any], config: Any) -> None:
    known = {name for name in vars(config) if not name.startswith("_")} | set(getattr(config, "attribute_map", {}))
    unknown = sorted(set(sizes) - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(known), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ModelError(f"{where}: {config.model_type!r} has no key {unknown[0]!r}{hint}")


def _built(auto: str, config: Any) -> Any:
    import transformers

    try:
        return getattr(transformers, auto).from_config(config, dtype=torch.float32).eval()
    except (ValueError, TypeError, KeyError, RuntimeError, AssertionError) as error:
        raise ModelError(
            f"architecture {config.model_type!r} cannot be built as {auto.removeprefix('AutoModelFor')}: {first_line(error)}"
        ) from error
