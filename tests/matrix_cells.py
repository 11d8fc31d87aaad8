"""How each cell of the table of generators and taggers is proven, given an architecture's chain."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from slm_registry import TextGenerator, TextToText, TokenClassifier
from slm_registry.runtime.loading import load_folder

from pipelines.bundle import Bundle, read_json, read_lineage
from pipelines.data.clean import load_clean
from pipelines.errors import ModelError
from pipelines.families import load_bundle, sequence_family_of
from pipelines.families.sequences import Example
from pipelines.genai import genai_layout
from pipelines.gguf.exporting import export_gguf
from pipelines.sequences.generators import load_generator
from pipelines.sequences.labelling import Labelled, read_labels
from pipelines.techniques.slicing import shape_of
from pipelines.techniques.weightmatrices import expected_products
from pipelines.token_signals import SampledRows, TopKRows
from tests.families_cells import CUTS
from tests.genai import Genai
from tests.llama_cpp import LlamaCpp, ends, torch_tokens
from tests.registry.generators import torch_greedy
from tests.sequence_chain import ONE_EPOCH, QUANTIZED, TARGETS, Chain, losses_of

TEXTS = ["the cat sees a book", "Tom", "my friend finds the moon", "Anna reads Berlin"]
WRITTEN = {"rows": 32, "prompt_tokens": 4, "max_new_tokens": 6, "temperature": 1.0, "replace": True}
ON_POLICY = {"share": 1.0, "prompt_tokens": 4, "max_new_tokens": 6, "temperature": 1.0}
FEWER_LAYERS = {"distill__student": {"kind": "layers", "layers": [0, 2]}}
#: Largest distance of a quantized file's first output from float32's; random weights are wide, and unrelated outputs are 1.4 apart.
NEAR = {"int8": 0.15, "int4": 0.7, "GPTQ": 0.7}


def check_cell(chain: Chain, column: str, reason: str | None) -> None:
    """The cell works, or a user is told why not."""
    if reason is None:
        (CHECKS.get(column) or (_cut if column in CUTS else _quantized))(chain, column)
        return
    with pytest.raises((ModelError, ValueError), match=reason):
        _ask_in_vain(chain, column)


def _ask_in_vain(chain: Chain, column: str) -> None:
    if column == "teacher texts":
        chain.recipe(label__texts=WRITTEN)
    elif column == "on-policy":
        chain.recipe(distill__on_policy=ON_POLICY)
    elif column == "GGUF":
        export_gguf(load_generator(chain.pruned), chain.folder / "refused.gguf", "f32")
    elif column == "genai":
        genai_layout(chain.exported, chain.folder / "refused")
    else:
        chain.cut("refused", {f"prune__{CUTS[column]}": TARGETS[CUTS[column]]})


def _learned(curve: Path) -> None:
    losses = losses_of(curve)
    assert len(losses) > 1 and losses[-1] < losses[0], losses


def _top_k(chain: Chain, column: str) -> None:
    labelled = _labelled(chain, chain.signals)
    for index in (0, len(labelled.examples) - 1):
        stored, truth = labelled.signals.rows([index]), _teacher_says(chain, labelled.examples[index]).exp()
        assert isinstance(stored, TopKRows)
        told = truth.gather(1, torch.from_numpy(stored.ids))
        assert torch.allclose(told, torch.from_numpy(stored.log_probs).exp(), atol=0.02)
        likeliest = truth.topk(stored.ids.shape[1]).values.sum(1)
        assert torch.allclose(told.sum(1), likeliest, atol=1e-3)
    _learned(chain.distilled("of-top-k", chain.signals, **FEWER_LAYERS).with_suffix(".csv"))


def _labelled(chain: Chain, signals: Path) -> Labelled:
    task = chain.recipe().task
    given = sequence_family_of(task).examples(
        load_bundle(chain.teacher, task), load_clean(chain.clean).train, task.max_length
    )
    return read_labels(signals, given)


def _teacher_says(chain: Chain, example: Example) -> torch.Tensor:
    """The teacher's log-probabilities [P, C] at an example's predictions."""
    task = chain.recipe().task
    family, teacher = sequence_family_of(task), load_bundle(chain.teacher, task)
    with torch.inference_mode():
        rows = family.rows(teacher.model, family.collate(teacher, [example]))
        return rows.head(rows.features).log_softmax(-1)


def _are_draws(log_probs: torch.Tensor, ids: torch.Tensor, counts: torch.Tensor, within: float) -> None:
    """Draws from a distribution cost, in nats, what its entropy says: [P, C] of [P, K] ids, drawn so many times each."""
    cost = -(counts * log_probs.gather(1, ids)).sum() / counts.sum()
    entropy = -(log_probs.exp() * log_probs).sum(1).mean()
    assert abs(float(cost - entropy)) < within, (float(cost), float(entropy))


def _sampled(chain: Chain, column: str) -> None:
    signals = chain.labelled("draws", label__signals={"kind": "sampled", "k": 32})
    labelled = _labelled(chain, signals)
    places = range(0, len(labelled.examples), 3)
    stored = labelled.signals.rows(list(places))
    assert isinstance(stored, SampledRows) and (stored.counts.sum(1) == 32).all()
    truth = torch.cat([_teacher_says(chain, labelled.examples[at]) for at in places])
    _are_draws(truth, torch.from_numpy(stored.ids), torch.from_numpy(stored.counts), within=0.1)
    _learned(chain.distilled("of-draws", signals, **FEWER_LAYERS).with_suffix(".csv"))


def _texts(chain: Chain, column: str) -> None:
    signals = chain.labelled("texts", label__texts=WRITTEN)
    written = read_json(signals / "written.json")
    examples = _labelled(chain, signals).examples
    assert 0 < len(written) == len(examples) <= WRITTEN["rows"]
    truth = torch.cat([_teacher_says(chain, example) for example in examples])
    ids = torch.tensor([token for example in examples for token in example.classes])[:, None]
    _are_draws(truth, ids, torch.ones_like(ids), within=0.5)
    _learned(chain.distilled("of-texts", signals, **FEWER_LAYERS).with_suffix(".csv"))


def _on_policy(chain: Chain, column: str) -> None:
    changes = FEWER_LAYERS | {"distill__on_policy": ON_POLICY, "distill__training": ONE_EPOCH}
    task = chain.recipe().task
    kind = type(sequence_family_of(task))
    write, texts = kind.write, 0

    def counted(*given: Any) -> list[Example]:
        nonlocal texts
        found: list[Example] = write(*given)
        texts += len(found)
        return found

    with mock.patch.object(kind, "write", counted):
        student = chain.distilled("of-itself", chain.signals, **changes)
    assert texts > 0
    # A student that were its own teacher would have nothing to learn.
    assert all(math.isfinite(loss) and loss > 1e-3 for loss in losses_of(student.with_suffix(".csv")))
    before, after = (load_bundle(folder, task).model for folder in (chain.teacher, student))
    assert not torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)


def _cut(chain: Chain, column: str) -> None:
    """The fullest cut has this one in it; the pruned folder is one that plain transformers loads."""
    import transformers

    key, before = CUTS[column], load_bundle(chain.student, chain.recipe().task)
    auto = getattr(transformers, sequence_family_of(chain.recipe().task).auto)
    model = auto.from_pretrained(chain.pruned, trust_remote_code=chain.trusted is not None)
    if key == "vocabulary":
        assert model.config.vocab_size == len(chain.bundle.tokenizer) < len(before.tokenizer)
        _says_the_same_with_fewer_tokens(chain, before)
        return
    assert getattr(shape_of(model), key) == TARGETS[key] < getattr(shape_of(before.model), key)
    if key == "num_hidden_layers":
        _layers_are_those_that_were(chain, before)


def _says_the_same_with_fewer_tokens(chain: Chain, before: Bundle) -> None:
    """Cut alone, a vocabulary changes no logit of what stays."""
    task = chain.recipe().task
    family, after = (
        sequence_family_of(task),
        load_bundle(chain.cut("tokens", {"prune__vocabulary": TARGETS["vocabulary"]}), task),
    )
    logits = []
    for bundle in (before, after):
        example = family.examples(bundle, load_clean(chain.clean).train, task.max_length)[0]
        with torch.inference_mode():
            rows = family.rows(bundle.model, family.collate(bundle, [example]))
            logits.append(rows.head(rows.features))
    names = after.tokenizer.convert_ids_to_tokens(list(range(len(after.tokenizer))))
    tagging = task.type == "token-classification"
    stayed = slice(None) if tagging else before.tokenizer.convert_tokens_to_ids(names)
    assert torch.allclose(logits[0][:, stayed], logits[1], atol=1e-4)


def _layers_are_those_that_were(chain: Chain, before: Bundle) -> None:
    """Cut alone and before recovery, every layer is one of the layers there were, whole and in their order."""
    with mock.patch("pipelines.sequences.pruning.learn_tokens", return_value=[]):
        folder = chain.cut("layers", {"prune__num_hidden_layers": TARGETS["num_hidden_layers"]})
    after, old = load_bundle(folder, chain.recipe().task).model.state_dict(), before.model.state_dict()
    origins: dict[tuple[str, int], set[int]] = {}
    for name, tensor in after.items():
        stack, number, rest = (re.match(r"(.*?)\.(\d+)\.(.*)", name) or re.match("(.*)()()", name)).groups()  # type: ignore[union-attr]
        if not number:
            assert torch.equal(old[name], tensor), name
            continue
        same = {
            int(at) for at in range(8) if (there := f"{stack}.{at}.{rest}") in old and torch.equal(old[there], tensor)
        }
        # What one layer has for all (T5's table of distances) goes to whichever is the first.
        if sum(f"{stack}.{at}.{rest}" in old for at in range(8)) == 1:
            assert same, name
        else:
            origins[stack, int(number)] = origins.get((stack, int(number)), same) & same
    for stack in {stack for stack, _ in origins}:
        found = [origins[stack, at] for at in range(sum(one == stack for one, _ in origins))]
        assert all(found) and all(min(one) < max(other) for one, other in pairwise(found)), origins


def _float(chain: Chain, column: str) -> None:
    """The stage has held logits and greedy tokens against torch; here the published folder answers without torch."""
    last = read_lineage(chain.exported)["stages"][-1]
    assert last["stage"] == "quantize" and last["parity"] <= 1e-3
    model = load_folder(chain.exported)
    if isinstance(model, TokenClassifier):
        _same_tags(chain, model)
        return
    assert isinstance(model, TextGenerator | TextToText)
    tokenizer, end = chain.bundle.tokenizer, chain.bundle.tokenizer.eos_token_id
    special = isinstance(model, TextToText)
    rows = [tokenizer(text, add_special_tokens=special)["input_ids"] for text in TEXTS]
    # The context ends there; of an encoder-decoder the answer has one of its own.
    room = [12 if special else model.max_length - len(row) for row in rows]
    wanted = [
        answer[:most]
        for answer, most in zip(torch_greedy(chain.bundle.model, rows, 12, [end], left=not special), room, strict=True)
    ]
    for batch_size in (1, 4):
        found = model.generate(TEXTS, max_new_tokens=12, batch_size=batch_size)
        assert [one.prompt_tokens for one in found] == list(map(len, rows))
        assert [list(one.token_ids) for one in found] == wanted


def _same_tags(chain: Chain, model: TokenClassifier) -> None:
    words = [text.split() for text in TEXTS]
    found = [[tag.label if tag else None for tag in row] for row in model.predict_words(words)]
    torch_side, wanted = chain.bundle.model, []
    for row in words:
        encoded = chain.bundle.tokenizer(row, is_split_into_words=True, return_tensors="pt")
        with torch.inference_mode():
            best = torch_side(input_ids=encoded["input_ids"]).logits[0].argmax(-1).tolist()
        places = [encoded.word_ids(0).index(word) for word in range(len(row))]
        wanted.append([torch_side.config.id2label[best[place]] for place in places])
    assert found == wanted


def _quantized(chain: Chain, column: str) -> None:
    assert column in QUANTIZED
    folder, converted = chain.quantized(column)
    assert sum(converted.values()) >= expected_products(chain.bundle.model) > 0
    distance = chain.distance(folder)
    assert 0 < distance < NEAR[column], distance
    if column == "GPTQ" and (chain.folder / "int4").exists():
        names = [path.name for path in folder.glob("*.onnx")]
        assert any((folder / name).read_bytes() != (chain.folder / "int4" / name).read_bytes() for name in names)
    assert all(_weight_bytes(folder / path.name) < _weight_bytes(path) for path in chain.exported.glob("*.onnx"))
    model = load_folder(folder)
    if isinstance(model, TokenClassifier):
        assert [len(row) for row in model.predict_words([["Tom", "sees"]])] == [2]
    else:
        assert isinstance(model, TextGenerator | TextToText)
        assert len(model.generate(TEXTS, max_new_tokens=4)) == len(TEXTS)


def _weight_bytes(path: Path) -> int:
    import onnx

    return sum(len(tensor.raw_data) for tensor in onnx.load(str(path)).graph.initializer)


def _gguf(chain: Chain, column: str) -> None:
    made = load_generator(chain.pruned)
    found = export_gguf(made, chain.folder / "model.gguf", "f32")
    model = LlamaCpp(chain.folder / "model.gguf", found["context_length"])
    for text in TEXTS:
        ids = made.tokenizer(text)["input_ids"]
        assert model.tokens(text) == ids
        new = min(12, found["context_length"] - 8)
        assert model.greedy(ids[:8], new) == torch_tokens(made.model, ids[:8], new, ends(made.tokenizer))


def _genai(chain: Chain, column: str) -> None:
    genai_layout(chain.exported, chain.folder / "genai")
    model, torch_side = Genai(chain.folder / "genai"), chain.bundle.model
    for text in TEXTS:
        ids = chain.bundle.tokenizer(text)["input_ids"]
        new = min(12, chain.recipe().task.max_length - len(ids))
        wanted = torch_tokens(torch_side, ids, new)
        assert wanted and model.greedy(ids, new) == [
            one for one in wanted if one != chain.bundle.tokenizer.eos_token_id
        ]


CHECKS: dict[str, Callable[[Chain, str], None]] = {
    "top-k signals": _top_k,
    "sampled signals": _sampled,
    "teacher texts": _texts,
    "on-policy": _on_policy,
    "float32": _float,
    "GGUF": _gguf,
    "genai": _genai,
}
