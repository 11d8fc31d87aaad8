"""The table of model families as data: rows, columns, and for every cell that cannot work what a user is told.

tests/test_matrix*.py run every cell; tests/families_table.py writes docs/families.md from here.
"""

from __future__ import annotations

#: Architecture (transformers' name, or a variant of it) -> models that people know by name.
CAUSAL: dict[str, str] = {
    "gpt2": "GPT-2 Small to XL, DistilGPT-2",
    "gpt_neo": "GPT-Neo, TinyStories",
    "gptj": "GPT-J",
    "gpt_neox": "Pythia, GPT-NeoX",
    "phi": "Phi-1, Phi-1.5, Phi-2",
    "phi3": "Phi-3-mini, Phi-4",
    "llama": "Llama 2 and 3, Orca 2, TinyLlama, SmolLM",
    "mistral": "Mistral 7B, Orca-Math",
    "qwen2": "Qwen 2 and 2.5",
    "qwen3": "Qwen 3",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3 (text)",
    "mixtral": "Mixtral 8x7B",
}
OWN_CODE: dict[str, str] = {"openelm": "OpenELM and others with code of their own"}
SEQ2SEQ: dict[str, str] = {"t5": "T5-Small to T5-11B", "flan-t5": "Flan-T5, T5 v1.1", "bart": "BART, mBART-like"}
ENCODERS: dict[str, str] = {
    "bert": "BERT Tiny to Large, MiniLM",
    "distilbert": "DistilBERT",
    "roberta": "RoBERTa, DistilRoBERTa",
    "mobilebert": "MobileBERT",
    "deberta-v2": "DeBERTa v2 and v3",
    "modernbert": "ModernBERT",
    "eurobert": "EuroBERT",
}

#: Column of the table of generators and taggers -> what works means there.
SEQUENCE_COLUMNS: dict[str, str] = {
    "top-k signals": "the teacher's likeliest tokens are stored, a student learns from them",
    "sampled signals": "draws from the teacher are stored, a student learns from them",
    "teacher texts": "sequence-level: a student learns from texts that the teacher writes",
    "on-policy": "a student's own texts, scored by the teacher",
    "depth": "fewer layers",
    "FFN width": "fewer columns in every layer",
    "heads": "fewer attention heads, KV groups kept whole",
    "hidden width": "fewer residual channels",
    "experts": "fewer experts in every layer",
    "vocabulary": "fewer tokens",
    "float32": "exported; logits within 1e-3 of torch, greedy tokens the same, in a padded batch too",
    "int8": "dynamic int8; every matrix converted",
    "int4": "blockwise 4-bit weights; every matrix converted",
    "GPTQ": "the same, rounded by GPTQ",
    "GGUF": "`python -m pipelines.gguf`; llama.cpp cuts texts and writes as transformers does",
    "genai": "`python -m pipelines.genai`; onnxruntime-genai writes as transformers does",
}
#: Column of a cut -> the key under `prune` that asks for it.
CUTS: dict[str, str] = {
    "depth": "num_hidden_layers",
    "FFN width": "intermediate_size",
    "heads": "num_attention_heads",
    "hidden width": "hidden_size",
    "experts": "num_experts",
    "vocabulary": "vocabulary",
}
CLASSIFIER_COLUMNS: dict[str, str] = {
    "depth": "fewer layers",
    "FFN width": "fewer columns in every layer",
    "heads": "fewer attention heads",
    "vocabulary": "fewer tokens",
    "fresh student": "random weights, the teacher's architecture",
    "pretrained student": "a smaller model of the same architecture",
    "static student": "no layers; token vectors begun from the teacher's answers",
    "float32": "exported; logits within 1e-4 of torch, padded and unpadded",
    "int8": "dynamic int8",
    "static int8": "int8 with calibrated activations",
}

_NO_EXPERTS = "its config names no num_experts"
_FIXED_HEAD = "so its config cannot say that there are fewer heads"
_HEADS_ARE_THE_WIDTH = "so a channel cannot go without a part of a head"
_NO_TEXTS = "a tagger writes no texts"
_NO_GGUF = "no GGUF is written for it"
_WRITERS_ONLY = "only models for text-generation can be used here"
#: Columns of other runtimes.
RUNTIMES = ("GGUF", "genai")

#: (architecture, column) -> a piece of the message that a user sees; taggers have a table of their own.
GENERATOR_REASONS: dict[tuple[str, str], str] = (
    {(kind, "experts"): _NO_EXPERTS for kind in (*CAUSAL, *SEQ2SEQ) if kind != "mixtral"}
    | {(kind, "heads"): _FIXED_HEAD for kind in ("gpt2", "gpt_neo", "gptj", "gpt_neox", "bart")}
    | {(kind, "hidden width"): _HEADS_ARE_THE_WIDTH for kind in ("gpt2", "gpt_neo", "gptj", "gpt_neox", "bart")}
    | {(kind, column): _WRITERS_ONLY for kind in SEQ2SEQ for column in RUNTIMES}
    | {(kind, "GGUF"): _NO_GGUF for kind in ("gpt_neo", "gptj")}
)
TAGGER_REASONS: dict[tuple[str, str], str] = (
    {(kind, column): _NO_TEXTS for kind in ENCODERS for column in ("teacher texts", "on-policy")}
    | {(kind, column): _WRITERS_ONLY for kind in ENCODERS for column in RUNTIMES}
    | {(kind, "experts"): _NO_EXPERTS for kind in ENCODERS}
    | {(kind, "heads"): _FIXED_HEAD for kind in ENCODERS if kind != "eurobert"}
    | {(kind, "hidden width"): _HEADS_ARE_THE_WIDTH for kind in ENCODERS if kind not in ("mobilebert", "eurobert")}
    | {("modernbert", "depth"): "layers of unlike kinds cannot be cut"}
)
_UNCUT = {
    "mobilebert": "its layers are bottlenecks",
    "modernbert": "its layers fuse queries, keys and values, and the FFN's two inputs, into one matrix each",
    "eurobert": "its heads share keys and values, and its FFN is gated",
}
CLASSIFIER_REASONS: dict[tuple[str, str], str] = {
    (kind, column): reason for kind, reason in _UNCUT.items() for column in ("FFN width", "heads")
}
#: The same for a checkpoint with code of its own (tests/test_matrix_own_code.py); llama's in everything else but other runtimes.
OWN_CODE_REASONS: dict[tuple[str, str], str] = {
    ("openelm", "experts"): _NO_EXPERTS,
    ("openelm", "GGUF"): _NO_GGUF,
}
