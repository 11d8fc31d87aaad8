"""A student whose tokenizer is not its teacher's, through the real stages: label, distill, prune, quantize, evaluate, gate's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from slm_registry import TextGenerator, TextToText

from pipelines.bundle import CONTROL, read_json
from pipelines.data.clean import load_clean
from pipelines.errors import ModelError
from pipelines.families.loading import load_tokenizer
from pipelines.stages.evaluate import evaluate
from pipelines.stages.prune import prune
from pipelines.stages.quantize import quantize
from pipelines.techniques.course import Unkept
from tests.sequence_chain import Chain, clean_data, losses_of
from tests.sequence_recipes import TOKEN_LOSSES, sequence_recipe
from tests.tiny_generators import tiny_causal, tiny_seq2seq

ULD = TOKEN_LOSSES | {"divergence": "uld", "cross_entropy": 1.0}
TEXTS_ALONE = TOKEN_LOSSES | {"weight": 0.0, "cross_entropy": 1.0}
#: Task -> the teacher's maker and architecture, and the student's architecture and sizes.
PAIRS: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "text-generation": (
        tiny_causal,
        "gpt2",
        "llama",
        {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
        },
    ),
    "text-to-text": (
        tiny_seq2seq,
        "t5",
        "t5",
        {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 48, "dropout_rate": 0.0},
    ),
}


@pytest.fixture(scope="module", params=PAIRS)
def crossing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Chain, dict[str, Any]]:
    """A teacher's chain, and what its recipe says of a student with other tokens."""
    task, folder = request.param, tmp_path_factory.mktemp(request.param)
    maker, kind, architecture, sizes = PAIRS[task]
    student = {
        "kind": "scratch",
        "architecture": architecture,
        "sizes": sizes,
        "tokenizer": {"kind": "byte_bpe", "vocab_size": 270},
    }
    texts = {"rows": 8, "prompt_tokens": 4, "max_new_tokens": 6, "temperature": 1.0, "replace": False}
    changes = {
        "label__texts": texts,
        "distill__student": student,
        "distill__losses": ULD,
        "distill__control": True,
        "prune__losses": ULD,
    }
    chain = Chain(task, maker(folder / "source", kind), clean_data(folder, task), folder, frozenset())
    chain.distilled("student", chain.labelled("signals", **changes), **changes)
    return chain, changes


@pytest.fixture(scope="module")
def exported(crossing: tuple[Chain, dict[str, Any]]) -> Path:
    """The student pruned and exported."""
    chain, changes = crossing
    block, folder = chain.recipe(**changes), chain.folder
    student, signals = folder / "student", folder / "signals"
    prune(
        chain.clean,
        signals,
        student,
        folder,
        folder / "pruned",
        folder / "prune.csv",
        block.task,
        None,
        block.prune,
        Unkept(),
    )
    quantize(chain.clean, folder / "pruned", folder / "exported", block.task, block.quantize)
    return folder / "exported"


def test_it_learns_is_cut_and_answers_in_its_own_tokens(crossing: tuple[Chain, dict[str, Any]], exported: Path) -> None:
    chain, _ = crossing
    losses = losses_of(chain.folder / "student.csv")
    assert losses[1] < losses[0]
    trained, own = (load_tokenizer(folder).get_vocab() for folder in (chain.folder / "student", exported))
    assert trained != load_tokenizer(chain.teacher).get_vocab()
    assert set(own) <= set(trained)
    assert load_tokenizer(chain.folder / "student" / CONTROL).get_vocab() == trained
    loader = TextGenerator if chain.task == "text-generation" else TextToText
    assert len(loader.from_folder(exported).generate(["the cat sees", "Tom"], max_new_tokens=4)) == 2


@pytest.mark.parametrize("crossing", ["text-generation"], indirect=True)
def test_it_is_measured_beside_its_teacher(crossing: tuple[Chain, dict[str, Any]], exported: Path) -> None:
    chain, changes = crossing
    block, folder, curves = chain.recipe(**changes), chain.folder, chain.folder / "curves"
    curves.mkdir()
    for stage, file in (("teach", "teach"), ("distill", "student"), ("prune", "prune")):
        (curves / f"{stage}.csv").write_bytes((folder / f"{file}.csv").read_bytes())
    out, bundle = folder / "evaluation", folder / "bundle"
    sides = (chain.teacher, folder / "student", exported)
    evaluate(chain.clean, *sides, folder / "front", curves, bundle, out, block.task, block.evaluate)
    metrics = read_json(out / "metrics.json")
    assert all(metrics[side]["bits_per_byte"] > 0 for side in ("teacher", "control", "student", "model"))
    own, teachers = load_tokenizer(bundle), load_tokenizer(chain.teacher)
    alike = [pieces(own, text) == pieces(teachers, text) for text in load_clean(chain.clean).test.texts]
    assert metrics["model"].get("agreement_rows", 0) == pytest.approx(sum(alike) / len(alike))
    assert ("agreement" in metrics["model"]) == any(alike)
    assert (out / "report.html").is_file()
    assert (bundle / "README.md").is_file()


def pieces(tokenizer: Any, text: str) -> list[str]:
    """A text's tokens by name, the end of text with them."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    names: list[str] = tokenizer.convert_ids_to_tokens([*ids, tokenizer.eos_token_id])
    return names


def test_texts_alone_serve_too(crossing: tuple[Chain, dict[str, Any]]) -> None:
    chain, changes = crossing
    chain.distilled("of-texts", chain.folder / "signals", **(changes | {"distill__losses": TEXTS_ALONE}))
    losses = losses_of(chain.folder / "of-texts.csv")
    assert losses[1] < losses[0]


def test_nothing_is_compared_in_silence(crossing: tuple[Chain, dict[str, Any]]) -> None:
    chain, changes = crossing
    with pytest.raises(
        ModelError, match=r"disagree on token id 0.*distill\.losses\.divergence forward_kl.*set it to uld"
    ):
        chain.distilled("refused", chain.folder / "signals", **(changes | {"distill__losses": TOKEN_LOSSES}))
    own = {"share": 0.5, "prompt_tokens": 3, "max_new_tokens": 4, "temperature": 1.0}
    with pytest.raises(ModelError, match=r"distill\.on_policy: the teacher cannot score"):
        chain.distilled("refused", chain.folder / "signals", **(changes | {"distill__on_policy": own}))


def test_prune_refuses_as_distill_does(crossing: tuple[Chain, dict[str, Any]]) -> None:
    chain, changes = crossing
    block = chain.recipe(**(changes | {"prune__losses": TOKEN_LOSSES}))
    with pytest.raises(ModelError, match=r"prune\.losses\.divergence forward_kl"):
        prune(
            chain.clean,
            chain.folder / "signals",
            chain.folder / "student",
            chain.folder,
            chain.folder / "no",
            chain.folder / "no.csv",
            block.task,
            None,
            block.prune,
            Unkept(),
        )


def test_tags_are_not_compared_without_their_names() -> None:
    with pytest.raises(ValueError, match=r"prune\.losses\.divergence is uld, which knows no names"):
        sequence_recipe("token-classification", prune__losses=ULD)


def test_draws_do_not_serve_uld() -> None:
    with pytest.raises(ValueError, match=r"draws .* serve forward_kl alone"):
        sequence_recipe("text-generation", label__signals={"kind": "sampled", "k": 4}, distill__losses=ULD)
