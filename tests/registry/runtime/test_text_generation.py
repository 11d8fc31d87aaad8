"""Writing on from a prompt: as transformers does, in batches and streams, to every kind of end."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slm_registry import CorruptError, Generation, InputTypeError, TextGenerator, UsageError
from slm_registry.runtime import text_generation
from slm_registry.runtime.loading import load_folder

from tests.made_once import MadeOnce
from tests.registry.generators import END, STORY, make_reciter, torch_greedy, with_ends
from tests.registry.helpers import REPOSITORY
from tests.tiny_generators import CAUSAL

PROMPTS = ["def add(first", "the cat sat on the mat and looked at the moon", "x", "naïve café, größer als"]
STORIES = REPOSITORY.parent / "shared" / "models" / "stories260K"


@pytest.fixture(scope="module")
def reciter(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return TextGenerator.from_folder(make_reciter(tmp_path_factory.mktemp("reciter")))


def tokens_of(model: TextGenerator, text: str) -> list[int]:
    return list(model._opened().tokenizer.encode(text).ids)


@pytest.mark.parametrize("kind", CAUSAL)
def test_greedy_tokens_are_those_of_transformers(made_once: MadeOnce, kind: str, tmp_path: Path) -> None:
    torch_model, folder = made_once.model(kind)
    model = load_folder(folder)
    assert isinstance(model, TextGenerator)
    rows = [tokens_of(model, text) for text in PROMPTS]
    own = list(model._ends)
    wanted = torch_greedy(torch_model, rows, 20, own, left=True)
    alone = [torch_greedy(torch_model, [row], 20, own, left=True)[0] for row in rows]
    for batch_size in (1, 3, 4):
        found = model.generate(PROMPTS, max_new_tokens=20, batch_size=batch_size)
        assert [list(one.token_ids) for one in found] == wanted == alone
        assert [one.prompt_tokens for one in found] == [len(row) for row in rows]
    # Rows that end at unlike times leave the batch, and with them the padding that only they needed.
    ends = [wanted[0][3], wanted[1][7]]
    ended = load_folder(with_ends(folder, tmp_path / "ended", ends)).generate(PROMPTS, max_new_tokens=20)  # type: ignore[attr-defined]
    expected = torch_greedy(torch_model, rows, 20, ends, left=True)
    assert [list(one.token_ids) for one in ended] == expected
    assert [one.finish_reason for one in ended] == ["end" if len(row) < 20 else "length" for row in expected]
    assert len({len(row) for row in expected}) > 1


def test_sampled_rows_do_not_depend_on_their_batch(made_once: MadeOnce) -> None:
    model = load_folder(made_once.model("llama")[1])
    assert isinstance(model, TextGenerator)
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.3, "top_k": 40, "top_p": 0.95, "seed": 5}
    whole = model.generate([*PROMPTS, PROMPTS[0]], **options)
    for batch_size in (1, 2):
        assert model.generate([*PROMPTS, PROMPTS[0]], batch_size=batch_size, **options) == whole
    assert whole[0].token_ids != whole[-1].token_ids
    stream = model.stream(PROMPTS[0], **options)
    assert "".join(stream) == whole[0].text
    assert stream.result == whole[0]
    assert model.generate(PROMPTS, **{**options, "seed": 6}) != whole[:-1]
    unseeded = {**options, "seed": None}
    assert model.generate(PROMPTS, **unseeded) != model.generate(PROMPTS, **unseeded)


def test_repetition_penalty_is_that_of_transformers(made_once: MadeOnce) -> None:
    import torch

    torch_model, folder = made_once.model("llama")
    model = load_folder(folder)
    assert isinstance(model, TextGenerator)
    row = tokens_of(model, PROMPTS[0])
    with torch.inference_mode():
        wanted = torch_model.generate(
            torch.tensor([row]), do_sample=False, max_new_tokens=16, repetition_penalty=1.7, eos_token_id=None
        )[0, len(row) :].tolist()
    (found,) = model.generate(PROMPTS[:1], max_new_tokens=16, repetition_penalty=1.7)
    assert list(found.token_ids) == wanted != torch_greedy(torch_model, [row], 16, None, left=True)[0]


@pytest.mark.parametrize("at_once", [None, 3000])
def test_scores_are_torch_log_probabilities(
    made_once: MadeOnce, monkeypatch: pytest.MonkeyPatch, at_once: int | None
) -> None:
    import torch

    torch_model, folder = made_once.model("llama")
    model = load_folder(folder)
    assert isinstance(model, TextGenerator)
    if at_once is not None:
        # A few positions a step.
        monkeypatch.setattr(text_generation, "_SCORED_AT_ONCE", at_once)
    texts = [*PROMPTS, "", "the moon and the house by the sea " * 12]
    found = model.score(texts, batch_size=2)
    for text, score in zip(texts, found, strict=True):
        ids = [torch_model.config.bos_token_id, *tokens_of(model, text)]
        total = 0.0
        for start in range(0, len(ids) - 1, 63):
            part = torch.tensor([ids[start : start + 64]])
            with torch.inference_mode():
                logits = torch_model(part).logits.double().log_softmax(dim=-1)[0]
            total += sum(float(logits[at, token]) for at, token in enumerate(part[0, 1:].tolist()))
        assert score.tokens == len(ids) - 1
        assert score.log_probability == pytest.approx(total, rel=1e-5, abs=1e-4)
    assert found[-1].tokens > 64


def test_it_recites(reciter: TextGenerator) -> None:
    data = STORY.encode()
    found = reciter.generate([STORY[:9], "x", STORY[:16]], max_new_tokens=60)
    assert [one.text for one in found] == [STORY[9:], data[1:].decode(), STORY[16:]]
    assert {one.finish_reason for one in found} == {"end"}
    assert found[1] == Generation(STORY[1:], tuple(tokens_of(reciter, STORY[1:])), "end", 1)


def test_pieces_are_whole_characters_and_together_the_text(reciter: TextGenerator) -> None:
    stream = reciter.stream("O", max_new_tokens=60)
    with pytest.raises(UsageError, match="take all of its pieces first"):
        _ = stream.result
    pieces = list(stream)
    assert pieces == list(STORY[1:])
    assert stream.result == reciter.generate(["O"], max_new_tokens=60)[0]
    # Ended in the midst of a character: what is there of it comes out at the end.
    cut = reciter.stream("O", max_new_tokens=len(b"nce upon a time \xe6\x9d"))
    assert list(cut)[-2:] == [" ", "\ufffd"]
    assert cut.result.finish_reason == "length"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["time"], "nce upon a "),
        (["end", "upon a time 東"], "nce "),
        (["京 was", "never"], "nce upon a time 東"),
        (["it.."], STORY[1:]),
        (["🦆"], STORY[1 : STORY.index("🦆")]),
        (["n"], ""),
    ],
)
def test_stop_strings_across_tokens(reciter: TextGenerator, stop: list[str], text: str) -> None:
    (found,) = reciter.generate(["O"], max_new_tokens=60, stop=stop)
    assert found.text == text
    assert found.finish_reason == ("end" if text == STORY[1:] else "stop")
    pieces = list(reciter.stream("O", max_new_tokens=60, stop=stop))
    assert "".join(pieces) == text
    assert all(STORY[1:].startswith("".join(pieces[:count])) for count in range(len(pieces)))


def test_ends_may_be_many_and_stand_in_either_file(tmp_path: Path) -> None:
    space, o, t = byte_ids(tmp_path, " ", "o", "t")
    folder = make_reciter(tmp_path / "m", eos_token_id=[space, t])
    assert TextGenerator.from_folder(folder).generate(["O"], max_new_tokens=9)[0].text == "nce"
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": o, "pad_token_id": None}))
    assert TextGenerator.from_folder(folder).generate(["O"], max_new_tokens=9)[0].text == "nce up"
    make_reciter(folder, eos_token_id="end")
    (folder / "generation_config.json").unlink()
    with pytest.raises(UsageError, match="eos_token_id is 'end'; it must be a token's number, a list of them, or null"):
        TextGenerator.from_folder(folder)


def byte_ids(tmp_path: Path, *letters: str) -> list[int]:
    model = TextGenerator.from_folder(make_reciter(tmp_path / "ids"))
    return [tokens_of(model, letter)[0] for letter in letters]


def test_a_full_context(tmp_path: Path) -> None:
    model = TextGenerator.from_folder(make_reciter(tmp_path / "m", positions=20))
    assert model.max_length == 20
    (found,) = model.generate([STORY[:15]], max_new_tokens=60)
    assert (found.text, found.finish_reason, len(found.token_ids)) == ("e 東", "length", 5)
    for prompt in ("x" * 20, "x" * 90):
        with pytest.raises(UsageError, match=f"prompt 1 has {len(prompt)} tokens; the context of 20 leaves room for"):
            model.generate(["ok", prompt], max_new_tokens=4)
        (cut,) = model.generate([prompt], max_new_tokens=4, truncate=True)
        assert (cut.prompt_tokens, len(cut.token_ids)) == (16, 4)
    (cut,) = model.generate(["x" * 90], max_new_tokens=400, truncate=True)
    assert (cut.prompt_tokens, len(cut.token_ids), cut.finish_reason) == (1, 19, "length")
    shorter = TextGenerator.from_folder(tmp_path / "m", max_length=7)
    assert len(shorter.generate(["abc"], max_new_tokens=60)[0].token_ids) == 4


def test_nothing_to_begin_with(tmp_path: Path, reciter: TextGenerator) -> None:
    with pytest.raises(UsageError, match="prompt 1 has no token, and the model names none to begin with"):
        reciter.generate(["x", ""], max_new_tokens=2)
    begun = TextGenerator.from_folder(make_reciter(tmp_path / "m", bos_token_id=END))
    assert begun.generate([""], max_new_tokens=3)[0] == Generation("nce", tuple(tokens_of(begun, "nce")), "length", 1)
    assert reciter.generate([], max_new_tokens=2) == []
    # Without a token to begin with the first one is no prediction.
    assert [score.tokens for score in reciter.score(["", "x", "On"])] == [0, 0, 1]
    assert [score.tokens for score in begun.score(["", "x"])] == [0, 1]


def test_many_threads_get_what_one_gets(made_once: MadeOnce) -> None:
    model = load_folder(made_once.model("llama")[1])
    assert isinstance(model, TextGenerator)
    options: dict[str, Any] = {"max_new_tokens": 10, "temperature": 0.9, "seed": 1}
    expected = model.generate(PROMPTS, **options)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: model.generate(PROMPTS, **options), range(40)):
            assert found == expected
        for text in pool.map(lambda _: "".join(model.stream(PROMPTS[0], **options)), range(16)):
            assert text == expected[0].text


def test_closed_is_closed(tmp_path: Path) -> None:
    with TextGenerator.from_folder(make_reciter(tmp_path / "m")) as model:
        stream = model.stream("O", max_new_tokens=60)
        first = next(stream)
    for use in (
        lambda: model.generate(["x"], max_new_tokens=1),
        lambda: model.stream("x", max_new_tokens=1),
        lambda: model.score([]),
    ):
        with pytest.raises(UsageError, match="the model is closed; load it again"):
            use()
    # What was under way ends well.
    assert first + "".join(stream) == STORY[1:]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": True}, "temperature is True"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"stop": "x"}, r"write stop=\['x'\]"),
        ({"stop": [""]}, "stop holds an empty string"),
        ({"stop": [3]}, "text 0 is int"),
    ],
)
def test_what_cannot_be_meant(reciter: TextGenerator, options: dict[str, Any], complaint: str) -> None:
    asked = {"max_new_tokens": 3, **options}
    for call in (lambda: reciter.generate([], **asked), lambda: reciter.stream("x", **asked)):
        with pytest.raises(UsageError, match=complaint):
            call()
    with pytest.raises(InputTypeError):
        reciter.generate("x", max_new_tokens=3)


def test_graphs_that_are_no_generator(tmp_path: Path) -> None:
    import onnx

    folder = make_reciter(tmp_path / "m")
    model = onnx.load(str(folder / "model.onnx"))
    model.graph.input[1].name = "mask"
    next(node for node in model.graph.node if node.output[0] == "seen").input[0] = "mask"
    onnx.save(model, str(folder / "model.onnx"))
    with pytest.raises(UsageError, match=r"model\.onnx: input mask \(tensor\(int64\)\) is unknown"):
        load_folder(folder)
    # It is said to have more positions than it has.
    make_reciter(folder, positions=8, max_position_embeddings=64)
    with pytest.raises(CorruptError, match="the model cannot run what its tokenizer gives it"):
        load_folder(folder).generate(["x" * 9], max_new_tokens=3)  # type: ignore[attr-defined]


def test_a_model_that_answers_nan(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    folder = make_reciter(tmp_path / "m")
    model = onnx.load(str(folder / "model.onnx"))
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == "zero")
    zero.CopyFrom(numpy_helper.from_array(np.array(np.nan, np.float32), "zero"))
    onnx.save(model, str(folder / "model.onnx"))
    for temperature in (0.0, 1.0):
        with pytest.raises(CorruptError, match="answers NaN"):
            TextGenerator.from_folder(folder).generate(["x"], max_new_tokens=3, temperature=temperature)


def test_generating_loads_no_torch(tmp_path: Path) -> None:
    make_reciter(tmp_path / "m")
    code = (
        "import sys; from slm_registry import TextGenerator\n"
        "print(TextGenerator.from_folder(sys.argv[1]).generate(['O'], max_new_tokens=3)[0].text)\n"
        "print([name for name in ('torch', 'transformers', 'optimum', 'onnx') if name in sys.modules])"
    )
    environment = {"PYTHONPATH": str(REPOSITORY / "registry"), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "nce\n[]\n"


@pytest.mark.skipif(not STORIES.is_dir(), reason="stories260K lies in ../shared, which is not here")
def test_a_trained_model_tells_its_story(tmp_path: Path) -> None:
    import shutil

    from transformers import AutoModelForCausalLM

    from pipelines.techniques.exporting_causal import export_causal

    torch_model = AutoModelForCausalLM.from_pretrained(STORIES).eval()
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(STORIES / name, tmp_path / name)
    export_causal(torch_model, tmp_path / "model.onnx", 512)
    model = load_folder(tmp_path)
    assert isinstance(model, TextGenerator)
    (found,) = model.generate([""], max_new_tokens=199)
    assert found.text.startswith("Once upon a time, there was a little girl named Lily.")
    row = tokens_of(model, "")
    assert list(found.token_ids) == torch_greedy(torch_model, [row], 199, [1, 2], left=True)[0]
    score = model.score([found.text])[0]
    # What it writes by itself it finds likely.
    assert math.exp(-score.log_probability / score.tokens) < 3
