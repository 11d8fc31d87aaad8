"""A checkpoint with code of its own (as OpenELM's): refused until the recipe trusts its files, then a row of the matrix like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.bundle import sha256_of
from pipelines.errors import ModelError
from pipelines.trusting import permitted_code
from tests.families_cells import GENERATOR_REASONS, OWN_CODE, OWN_CODE_REASONS, RUNTIMES, SEQUENCE_COLUMNS
from tests.matrix_cells import check_cell
from tests.sequence_chain import Chain, clean_data
from tests.tiny_generators import tiny_causal

NAME = "modeling_openelm.py"
#: Like a Llama but for its activation: who takes the weights for a Llama's gets other tokens.
CODE = """
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


class OpenELMConfig(LlamaConfig):
    model_type = "openelm"


class OpenELMForCausalLM(LlamaForCausalLM):
    config_class = OpenELMConfig

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp.act_fn = nn.Tanh()
"""


def own_code_model(folder: Path) -> Path:
    """A tiny checkpoint that nothing loads without its own code."""
    tiny_causal(folder, "llama")
    (folder / NAME).write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    module = NAME.removesuffix(".py")
    classes = {"AutoConfig": f"{module}.OpenELMConfig", "AutoModelForCausalLM": f"{module}.OpenELMForCausalLM"}
    config |= {"model_type": "openelm", "architectures": ["OpenELMForCausalLM"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("openelm")
    source, clean = own_code_model(folder / "source"), clean_data(folder / "clean", "text-generation")
    trusted = {NAME: sha256_of(source / NAME)}
    uncut = frozenset(column for _, column in OWN_CODE_REASONS)
    return Chain("text-generation", source, clean, folder, uncut, trusted)


@pytest.fixture
def trusting(chain: Chain) -> Iterator[Chain]:
    """The chain while its recipe runs, as `python -m pipelines` has it."""
    with permitted_code(chain.recipe()):
        yield chain


@pytest.mark.parametrize("column", SEQUENCE_COLUMNS)
def test_cell(trusting: Chain, column: str) -> None:
    check_cell(trusting, column, OWN_CODE_REASONS.get(("openelm", column)))


def test_code_is_refused_unless_the_recipe_trusts_it(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"runs code of its own \({NAME}\)"):
        _ = replace(chain, folder=tmp_path, trusted=None).teacher


def test_altered_code_is_refused(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{NAME}: sha256 is [0-9a-f]{{64}}, the recipe trusts 0{{64}}"):
        _ = replace(chain, folder=tmp_path, trusted={NAME: "0" * 64}).teacher


def test_a_bundle_runs_its_code_under_the_recipe_alone(chain: Chain) -> None:
    with permitted_code(chain.recipe()):
        assert (chain.teacher / NAME).read_text() == CODE
        chain.labelled("permitted")
    # Outside a recipe that permits it, what the folder's own lineage says permits nothing.
    with pytest.raises(ModelError, match="runs code of its own"):
        chain.labelled("unpermitted")
    with permitted_code(replace(chain, trusted=None).recipe()), pytest.raises(ModelError, match="runs code of its own"):
        chain.labelled("unpermitted")


def test_the_published_folder_holds_no_code(trusting: Chain) -> None:
    published = trusting.exported
    assert not list(published.glob("*.py"))
    assert "auto_map" not in (published / "config.json").read_text()
    assert json.loads((published / "config.json").read_text())["model_type"] == "openelm"
    assert "auto_map" in (trusting.pruned / "config.json").read_text()


def test_it_is_llamas_row() -> None:
    assert set(OWN_CODE) == {"openelm"}
    assert {column for kind, column in GENERATOR_REASONS if kind == "llama"} == {
        column for _, column in OWN_CODE_REASONS if column not in RUNTIMES
    }
