"""The commands of docs/runtimes.md, as they stand there, on tiny bundles; what cannot be written is told."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from pipelines import genai
from pipelines.bundle import read_json
from pipelines.environment import ROOT
from pipelines.gguf import __main__ as gguf
from pipelines.gguf.writing import FILE_TYPES
from tests.genai import Genai
from tests.llama_cpp import LlamaCpp
from tests.sequence_bundles import TASKS, exported_bundle, torch_bundle

MAINS = {"gguf": gguf.main, "genai": genai.main}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's commands find: a torch bundle and its export, of a build that never ran."""
    folder, task = tmp_path_factory.mktemp("clone"), TASKS["text-generation"]
    source = torch_bundle(folder / "build" / "python-complete" / "pruned", task)
    exported_bundle(source.with_name("bundle"), source, task)
    return folder


def test_the_page_s_commands_run(
    build: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(build)
    page = (ROOT / "docs" / "runtimes.md").read_text(encoding="utf-8")
    commands = re.findall(r"^ {4}python -m pipelines\.(\w+) (.+)", page, flags=re.MULTILINE)
    assert [name for name, _ in commands] == list(MAINS)
    for name, rest in commands:
        assert MAINS[name](shlex.split(rest)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["type"], told["architecture"], told["wider"]) == ("q8_0", "gpt2", [])
    assert Path("model.gguf").stat().st_size == told["bytes"]
    assert len(LlamaCpp(Path("model.gguf"), 64).greedy([5, 6, 7], 8)) == 8
    assert len(Genai(Path("build/genai")).greedy([5, 6, 7], 8)) == 8
    assert set(re.findall(r"`(f32|f16|q8_0|q4_0)`", page)) == set(FILE_TYPES)


def test_genai_s_layout_names_what_the_graph_has(build: Path, tmp_path: Path) -> None:
    folder = build / "build" / "python-complete" / "bundle"
    genai.genai_layout(folder, tmp_path / "out")
    layout = read_json(tmp_path / "out" / genai.LAYOUT)["model"]
    assert (layout["eos_token_id"], layout["pad_token_id"], layout["context_length"]) == (0, 1, 64)
    decoder = layout["decoder"]
    sizes = {"num_hidden_layers": 3, "num_key_value_heads": 4, "head_size": 8, "hidden_size": 32}
    assert {name: decoder[name] for name in sizes} == sizes
    assert layout["vocab_size"] == 320


def test_what_cannot_be_written_is_told(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned, bundle = (build / "build" / "python-complete" / name for name in ("pruned", "bundle"))
    tagger = torch_bundle(tmp_path / "tagger", TASKS["token-classification"])
    out = tmp_path / "out"
    for name, folder, told in (
        ("gguf", tagger, "only models for text-generation can be used here"),
        ("gguf", bundle, "model.safetensors missing"),
        ("genai", pruned, "model.onnx missing"),
        ("genai", tmp_path / "nothing", "no such folder"),
    ):
        more = ["--type", "f32"] if name == "gguf" else []
        assert MAINS[name]([str(folder), *more, "--out", str(out)]) == 4
        assert told in capsys.readouterr().err
        assert not out.exists()
    out.mkdir()
    with pytest.raises(genai.ModelError, match="exists already"):
        genai.genai_layout(bundle, out)


def test_a_graph_that_takes_something_else_is_refused(build: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(build / "build" / "python-complete" / "bundle" / "model.onnx"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("token_type_ids", onnx.TensorProto.INT64, [1, 1]))
    onnx.save(model, str(tmp_path / "more.onnx"))
    with pytest.raises(genai.ModelError, match="takes token_type_ids; onnxruntime-genai feeds ids, mask"):
        genai.graph_sizes(tmp_path / "more.onnx")
