"""A student without layers: a vector a token, their mean, one hidden layer and the head (after Tulkens & van Dongen 2024, model2vec).

Plain transformers has this form as a EuroBERT of no layers that averages its tokens, so to all that follows it is one more checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import StudentStatic
from pipelines.errors import ModelError

#: Tokens that the teacher reads at once, each alone among its special tokens.
TOKENS_AT_ONCE = 512


def static_student(teacher: Bundle, special: list[int], choice: StudentStatic) -> Any:
    """A model without layers that begins with the teacher's own answer to each token, reduced to `hidden_size` numbers.

    `special` are the ids that the teacher's tokenizer puts around a text. Raises ModelError where the teacher has fewer numbers a token.
    """
    width = teacher.model.config.hidden_size
    if choice.hidden_size > width:
        raise ModelError(
            f"a student without layers of hidden_size {choice.hidden_size}, but the teacher has {width} numbers a token; name at most as many under distill.student"
        )
    model = _without_layers(teacher, choice)
    answers = _token_answers(teacher, special, model.config.vocab_size)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(principal_components(answers, choice.hidden_size))
    return model


def principal_components(vectors: Tensor, size: int) -> Tensor:
    """Rows [N, H] as their first `size` principal components [N, size], scaled to unit variance over all of them.

    The sign of each component is fixed, so that the same rows give the same numbers.
    """
    centred = vectors.double() - vectors.double().mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :size]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    found = centred @ (axes * largest.sign())
    return (found / found.std(correction=0)).float()


def _token_answers(teacher: Bundle, special: list[int], tokens: int) -> Tensor:
    """The mean of the teacher's last states over each token alone among the special ones [V, H]."""
    # One before and one after a text in all that have them; where there is one alone, it stands after.
    before = special[: len(special) // 2]
    after = special[len(before) :]
    found = []
    with torch.inference_mode():
        for start in range(0, tokens, TOKENS_AT_ONCE):
            rows = [[*before, token, *after] for token in range(start, min(start + TOKENS_AT_ONCE, tokens))]
            ids = torch.tensor(rows)
            states = teacher.model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            found.append(states.mean(1))
    return torch.cat(found)


def _without_layers(teacher: Bundle, choice: StudentStatic) -> Any:
    from transformers import AutoModelForSequenceClassification, EuroBertConfig

    theirs, tokenizer = teacher.model.config, teacher.tokenizer
    config = EuroBertConfig(
        vocab_size=teacher.model.get_input_embeddings().num_embeddings,
        hidden_size=choice.hidden_size,
        intermediate_size=choice.hidden_size,
        num_hidden_layers=0,
        num_attention_heads=1,
        max_position_embeddings=tokenizer.model_max_length,
        classifier_pooling="mean",
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        mask_token_id=tokenizer.mask_token_id,
        id2label=theirs.id2label,
        label2id=theirs.label2id,
    )
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
