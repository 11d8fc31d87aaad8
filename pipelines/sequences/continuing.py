"""Texts that a generative model writes from the heads of given ones: data for a classifier's student, labelled by its teacher."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pipelines.config import TeacherTexts, Writer
from pipelines.data.clean import CleanData, Split
from pipelines.errors import ModelError
from pipelines.families.causal import CausalModel
from pipelines.families.sequences import Example
from pipelines.sources import fetch_pretrained

#: What this lever is called in a recipe.
WRITTEN = "written"
_HOW = {"prompt_tokens", "max_new_tokens", "temperature"}


def written_texts(texts: Sequence[str], known: Collection[str], wanted: Writer, seed: int) -> list[str]:
    """Up to `copies` texts a given text: its first tokens, and what the model goes on with to the end of the line; none of them known.

    Raises ModelError where the source is no causal language model, or has no room for what it is to write.
    """
    family, nothing = CausalModel(), Split([])
    data = CleanData(nothing, nothing, nothing, [], [], "")
    bundle = family.load_pretrained(fetch_pretrained(wanted.source, wanted.sha256), data, None)
    longest = wanted.prompt_tokens + wanted.max_new_tokens
    room = getattr(bundle.model.config, "max_position_embeddings", None) or longest
    if longest > room:
        raise ModelError(
            f"{wanted.source}: reads {room} tokens, but label.levers.written asks for {longest}; lower prompt_tokens or max_new_tokens"
        )
    rows = bundle.tokenizer(list(texts), truncation=True, max_length=wanted.prompt_tokens)["input_ids"]
    ends = set(bundle.tokenizer.all_special_ids) - {bundle.tokenizer.bos_token_id}
    prompts = [Example([token for token in row if token not in ends], range(0), []) for row in rows]
    how = TeacherTexts(rows=len(texts), replace=False, **wanted.model_dump(include=_HOW))
    seen, made = set(known), []
    for copy in range(wanted.copies):
        for example in family.write(bundle, [prompt for prompt in prompts if prompt.ids], how, seed + copy):
            text = _line(bundle.tokenizer.decode(example.ids, skip_special_tokens=True))
            if text and text not in seen:
                seen.add(text)
                made.append(text)
    return made


def _line(text: str) -> str:
    """The first line that says something, white space at its ends aside."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
