"""Vocabulary pruning: tokens that the domain never uses leave the tokenizer, the embeddings and the configs."""

from pipelines.techniques.vocabulary.checking import check_vocabulary
from pipelines.techniques.vocabulary.cutting import kept_tokens, prune_tokenizer, prune_vocabulary
from pipelines.techniques.vocabulary.roles import ids_in_use

__all__ = ["check_vocabulary", "ids_in_use", "kept_tokens", "prune_tokenizer", "prune_vocabulary"]
