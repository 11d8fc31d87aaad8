"""Tasks of lm-evaluation-harness on tiny models, through its own API, with data of the tests' own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from pipelines.families import sequence_family_of
from pipelines.harness import HarnessModel, main
from pipelines.sequences.sides import exported_side, torch_side
from tests.made_once import MadeOnce
from tests.sequence_bundles import TASKS, torch_bundle
from tests.tiny_generators import LINES

TASK = TASKS["text-generation"]
CHOICES = [
    {"context": "def add(", "right": "first, second):", "wrong": "the moon and the mat"},
    {"context": "import", "right": " os, sys", "wrong": " a small house by the sea"},
    {"context": "the cat", "right": " sat on the mat", "wrong": " return file"},
]
CHOOSING = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{context}}"
target_delimiter: ""
doc_to_choice: "{{[right, wrong]}}"
doc_to_target: 0
metric_list: [{metric: acc}]
"""
ROLLING = """
task: tiny_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{context}}{{right}}"
metric_list: [{metric: bits_per_byte}]
"""


@pytest.fixture(scope="module")
def folders(made_once: MadeOnce) -> tuple[Path, Path]:
    sides = made_once.sides(TASK)
    return sides["student"], sides["exported"]


def log_probabilities(folder: Path, ids: list[int]) -> list[float]:
    """Of each token but the first, by plain transformers."""
    model = sequence_family_of(TASK).load(folder).model
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [float(logs[at, token]) for at, token in enumerate(ids[1:])]


def test_the_harness_own_tasks_give_what_plain_transformers_gives(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = tmp_path / "rows.json"
    data.write_text("\n".join(map(json.dumps, CHOICES)))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name, text in (("choice", CHOOSING), ("rolling", ROLLING)):
        (tasks / f"{name}.yaml").write_text(text.replace("DATA", str(data)))
    asked = ["--tasks", "tiny_choice,tiny_rolling", "--include", str(tasks)]
    for folder in folders:
        assert main([str(folder), *asked, "--out", str(tmp_path / f"{folder.name}.json")]) == 0
    results = [json.loads((tmp_path / f"{folder.name}.json").read_text()) for folder in folders]

    tokenizer = sequence_family_of(TASK).load(folders[0]).tokenizer
    right, nats, size = 0, 0.0, 0
    for row in CHOICES:
        start = len(tokenizer(row["context"])["input_ids"])
        sums = [
            sum(log_probabilities(folders[0], tokenizer(row["context"] + row[key])["input_ids"])[start - 1 :])
            for key in ("right", "wrong")
        ]
        right += sums[0] > sums[1]
        whole = row["context"] + row["right"]
        nats -= sum(log_probabilities(folders[0], [tokenizer.eos_token_id, *tokenizer(whole)["input_ids"]]))
        size += len(whole.encode())
    for found in results:
        assert found["tiny_choice"]["acc,none"] == pytest.approx(right / len(CHOICES))
        assert found["tiny_rolling"]["bits_per_byte,none"] == pytest.approx(nats / math.log(2) / size, rel=1e-3)


def test_a_text_longer_than_the_context_is_scored_in_blocks(folders: tuple[Path, Path]) -> None:
    from lm_eval.api.instance import Instance

    text = " ".join(LINES)
    request = Instance("loglikelihood_rolling", {}, (text,), 0)
    scores = [
        HarnessModel(load(folder, 1, TASK), TASK.max_length).loglikelihood_rolling([request])[0]
        for load, folder in ((torch_side, folders[0]), (exported_side, folders[1]))
    ]
    tokenizer = sequence_family_of(TASK).load(folders[0]).tokenizer
    ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
    step = TASK.max_length - 1
    blocks = [ids[start : start + step + 1] for start in range(0, len(ids) - 1, step)]
    slow = sum(sum(log_probabilities(folders[0], block)) for block in blocks)
    assert sum(len(block) - 1 for block in blocks) == len(ids) - 1
    assert scores == [pytest.approx(slow, rel=1e-3)] * 2


def test_writing_ends_before_a_stop_string(folders: tuple[Path, Path]) -> None:
    from lm_eval.api.instance import Instance

    model = HarnessModel(torch_side(folders[0], 1, TASK), TASK.max_length)
    ask = lambda **settings: model.generate_until([Instance("generate_until", {}, ("def add(", settings), 0)])[0]  # noqa: E731
    whole = ask(max_gen_toks=8)
    assert len(whole) > 2
    assert ask(max_gen_toks=8, until=[whole[2]]) == whole.split(whole[2])[0]


def test_what_is_not_there_is_told(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folders[0]), "--tasks", "no_such_task_at_all", "--out", str(tmp_path / "x.json")]) == 1
    assert "has no no_such_task_at_all" in capsys.readouterr().err
    tagger = torch_bundle(tmp_path / "tagger", TASKS["token-classification"])
    assert main([str(tagger), "--tasks", "any", "--out", str(tmp_path / "x.json")]) == 1
    assert "a model for token-classification" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
