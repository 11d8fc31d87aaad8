from __future__ import annotations

from pathlib import Path

from pipelines.bundle import Bundle
from pipelines.config import MixedTokens, Task
from pipelines.data.clean import Split
from pipelines.families import sequence_family_of
from pipelines.sequences.exporting import shrink
from pipelines.techniques.weightmatrices import expected_products
from tests.made_once import MadeOnce
from tests.tiny_generators import LINES, bpe_tokenizer


def test_a_generators_matrices_are_ranked_and_recorded(made_once: MadeOnce, tmp_path: Path) -> None:
    model, folder = made_once.model("llama")
    task = Task(type="text-generation", seed=17, max_length=32, threads=1)
    wanted = MixedTokens(
        technique="mixed",
        share_high=0.3,
        block_size=16,
        symmetric=False,
        accuracy_level=4,
        rounding="gptq",
        calibration_rows=4,
        parity=1e-3,
    )
    family, bundle = sequence_family_of(task), Bundle(model, bpe_tokenizer(), {})
    examples = family.examples(bundle, Split(list(LINES)), task.max_length)
    facts = shrink(family, bundle, folder, ["model.onnx"], tmp_path, examples, task, wanted)
    assert facts["converted_matrices"] == {"model.onnx": expected_products(model)}
    named = {name for name, parameter in model.named_parameters() if parameter.ndim == 2}
    assert {each["matrix"] for each in facts["matrices"]} == named
    assert {each["bits"] for each in facts["matrices"]} == {4, 8}
    assert all(each["nats"] > 0 for each in facts["matrices"])
