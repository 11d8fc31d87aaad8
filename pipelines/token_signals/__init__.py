"""What a teacher said about every token of a language model's training text: written once, memory-mapped ever after.

token_signals/
  index.json         kind, k, vocabulary, facts about teacher and data, whether it is whole, and for every shard its counts and sha256
  shard-00000.bin    whole examples end to end, no padding; little-endian columns one after the other:
    lengths          [examples, 3] uint32: token ids, predictions and entries of each
    tokens           what the teacher read, an id in 2 bytes (3 where the vocabulary exceeds 65,536)
    heads            a prediction: float16 log-odds of what lies outside the top k, or uint8 number of distinct draws
    ids              an entry: 2 or 3 bytes
    codes            top k: uint8 depth of each entry but the first below the first; sampled: uint8 count of each

An entry is one (id, value) of a prediction: k of them in a top k, as many as there are distinct draws in a sample.
"""

from pipelines.token_signals.coding import bytes_per_prediction
from pipelines.token_signals.reading import TokenSignals, read_token_signals
from pipelines.token_signals.rows import Kind, Rows, SampledRows, TopKRows
from pipelines.token_signals.writing import TokenSignalsWriter

__all__ = [
    "Kind",
    "Rows",
    "SampledRows",
    "TokenSignals",
    "TokenSignalsWriter",
    "TopKRows",
    "bytes_per_prediction",
    "read_token_signals",
]
