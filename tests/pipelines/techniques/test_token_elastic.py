"""Parts of an elastic model that answers token by token: what a view computes is what the plain part computes, and it teaches the whole."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.bundle import Bundle
from pipelines.config import ElasticTokens, TokenLosses, Training
from pipelines.data.clean import Split
from pipelines.errors import ModelError
from pipelines.families import sequence_family_of
from pipelines.families.widths import depths_of
from pipelines.techniques import token_elastic
from pipelines.techniques.course import Unkept
from pipelines.techniques.shapes import Slice
from pipelines.techniques.slicing import shape_of
from pipelines.techniques.token_elastic import View, anatomy_of, sort_units, token_slices
from pipelines.techniques.token_learning import TokenLesson, lesson_loss, score_tokens
from tests.generators import difference, generator, inputs, logits
from tests.pipelines.techniques.test_slicing import HEAD_CUTS
from tests.sequence_recipes import SEQUENCE_TRAINING, TOKEN_LOSSES, sequence_recipe
from tests.tiny_generators import CAUSAL, HEADS, LINES, WIDTH, tiny_causal

LOSSES = TokenLosses.model_validate(TOKEN_LOSSES)
TRAINING = Training.model_validate(SEQUENCE_TRAINING)


def choice(**changes: Any) -> ElasticTokens:
    wanted = {
        "kind": "elastic",
        "layers": [[0, 1, 2], [2]],
        "intermediate_sizes": [WIDTH, WIDTH // 2],
        "num_attention_heads": [HEADS, HEADS // 2],
        "vocabulary": None,
        "importance": "taylor",
        "calibration_rows": 8,
        "whole_epochs": 1,
        "random_slices": 1,
        "in_place": 1.0,
    }
    return ElasticTokens.model_validate(wanted | changes)


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference of logits, as a share of the largest."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def answers(model: Any) -> torch.Tensor:
    """Logits that gradients flow through."""
    result: torch.Tensor = model(**inputs(model), use_cache=False).logits
    return result


def for_kind(kind: str, model: Any) -> ElasticTokens:
    """All that an architecture's parts can be cut in."""
    deep = depths_of(model.config)["num_hidden_layers"]
    heads = [HEADS, HEADS // 2] if kind in HEAD_CUTS else []
    return choice(layers=[[*range(deep)], [0, deep - 1]], num_attention_heads=heads)


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_view_is_the_plain_part(kind: str) -> None:
    model = generator(kind)
    wanted = for_kind(kind, model)
    anatomy = anatomy_of(model, wanted)
    parts = token_slices(wanted)
    assert len(parts) == (8 if kind in HEAD_CUTS else 4)
    for part in (parts[0], parts[-1]):
        plain = anatomy.plain(model, part)
        shape = shape_of(plain)
        assert (shape.num_hidden_layers, shape.intermediate_size) == (len(part.layers), part.intermediate_size)
        assert shape.num_attention_heads == (part.num_attention_heads or HEADS)
        seen = View(model, part, anatomy).run(logits, training=False)
        assert apart(seen, logits(plain)) < 1e-5
    assert difference(anatomy.plain(model, parts[0]), model) < 1e-5


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2"])
def test_a_part_teaches_the_weights_of_the_whole_that_it_has(kind: str) -> None:
    model = generator(kind)
    wanted = for_kind(kind, model)
    anatomy, part = anatomy_of(model, wanted), token_slices(wanted)[-1]
    loss = View(model, part, anatomy).run(lambda small: answers(small).square().mean(), training=False)
    loss.backward()
    plain = anatomy.plain(model, part)
    answers(plain).square().mean().backward()
    expected = sum(float(weight.grad.square().sum()) for weight in plain.parameters() if weight.grad is not None)
    found = sum(float(weight.grad.square().sum()) for weight in model.parameters() if weight.grad is not None)
    assert found == pytest.approx(expected, rel=1e-3)
    layer = next(weight for name, weight in model.named_parameters() if name.split(".")[-3:-2] != [] and ".1." in name)
    assert layer.grad is None or not layer.grad.any(), "a layer that the part has not"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    family = sequence_family_of(sequence_recipe("text-generation").task)
    folder = tiny_causal(tmp_path_factory.mktemp("elastic") / "llama", "llama")
    return family.load_ready(folder, None, None)  # type: ignore[arg-type]  # a model that writes has no labels


def opened(bundle: Bundle, wanted: ElasticTokens) -> token_elastic.TokenElastic:
    task = sequence_recipe("text-generation").task
    family = sequence_family_of(task)
    student = Bundle(copy.deepcopy(bundle.model), bundle.tokenizer, {})
    examples = family.examples(student, Split(list(LINES)), task.max_length)
    return token_elastic.token_elastic(family, student, wanted, TokenLesson(examples, None), examples)


@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
def test_sorting_changes_no_answer_and_puts_the_worthy_first(bundle: Bundle, importance: str) -> None:
    elastic = opened(bundle, choice(importance=importance))
    with torch.no_grad():
        for layer in elastic.student.model.model.layers:
            layer.mlp.down_proj.weight[:, : WIDTH // 2] *= 1e-2
            for up in (layer.mlp.up_proj, layer.mlp.gate_proj):
                up.weight[: WIDTH // 2] *= 1e-2
    before = logits(elastic.student.model)
    sort_units(elastic, LOSSES, np.arange(8), 4)
    assert apart(logits(elastic.student.model), before) < 1e-4
    for layer in elastic.student.model.model.layers:
        down = layer.mlp.down_proj.weight.norm(dim=0)
        assert down[: WIDTH // 2].min() > 10 * down[WIDTH // 2 :].max()
    half = elastic.anatomy.plain(elastic.student.model, Slice((0, 1, 2), WIDTH // 2, HEADS, 0))
    assert apart(logits(half), before) < 0.05


def test_the_smallest_part_learns_and_the_whole_does_not_forget(bundle: Bundle) -> None:
    wanted = choice(whole_epochs=0)
    elastic = opened(bundle, wanted)
    settings = TRAINING.model_copy(update={"epochs": 12, "patience": 12, "learning_rate": 3e-3})

    def losses() -> list[float]:
        found = []
        for part in (elastic.parts[0], elastic.parts[-1]):
            model = elastic.anatomy.plain(elastic.student.model, part)
            trial = Bundle(model, elastic.student.tokenizer, {})
            found.append(score_tokens(elastic.family, trial, elastic.checked).loss)
        return found

    before = losses()
    records = token_elastic.learn_elastic(elastic, LOSSES, settings, seed=1, keeper=Unkept())
    after = losses()
    assert [record.phase for record in records] == ["distill"] * len(records)
    assert after[0] < 0.6 * before[0] and after[1] < 0.8 * before[1]


def test_the_sandwich_is_the_mean_of_plain_losses(bundle: Bundle) -> None:
    """With nothing drawn and no in-place term: the whole's loss and the smallest part's, by plain models."""
    elastic = opened(bundle, choice(random_slices=0, in_place=0.0))
    batch = np.arange(4)
    views, rng = token_elastic._Views(elastic), np.random.default_rng(0)
    found = token_elastic._sandwich(elastic, views, batch, LOSSES, rng)
    plain = [elastic.anatomy.plain(elastic.student.model, elastic.parts[at]) for at in (0, -1)]
    expected = [
        float(lesson_loss(elastic.family, Bundle(model, bundle.tokenizer, {}), elastic.lesson, batch, LOSSES).detach())
        for model in plain
    ]
    assert float(found.detach()) == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_what_follows_the_whole_adds_the_kl_to_it(bundle: Bundle) -> None:
    elastic = opened(bundle, choice(random_slices=0, in_place=2.0))
    batch, part = np.arange(4), elastic.parts[-1]
    views, rng = token_elastic._Views(elastic), np.random.default_rng(0)
    found = float(token_elastic._sandwich(elastic, views, batch, LOSSES, rng))
    inputs = elastic.family.collate(bundle, [elastic.lesson.examples[at] for at in batch])
    small = elastic.anatomy.plain(elastic.student.model, part)
    with torch.no_grad():
        theirs, ours = (elastic.family.rows(model, inputs) for model in (elastic.student.model, small))
        p, q = theirs.head(theirs.features).log_softmax(-1), ours.head(ours.features).log_softmax(-1)
        kl = float((p.exp() * (p - q)).sum(-1).mean())
    without = opened(bundle, choice(random_slices=0, in_place=0.0))
    plain = float(token_elastic._sandwich(without, token_elastic._Views(without), batch, LOSSES, rng))
    assert found == pytest.approx(plain + 2.0 * kl / 2, rel=1e-4)


def test_parts_that_are_not_there_are_named(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match=r"a part of intermediate_size 128, but the elastic student has 64"):
        opened(bundle, choice(intermediate_sizes=[2 * WIDTH]))
    with pytest.raises(ModelError, match=r"a part of 3 heads, but the elastic student has KV groups of 2"):
        opened(bundle, choice(num_attention_heads=[HEADS, 3]))
