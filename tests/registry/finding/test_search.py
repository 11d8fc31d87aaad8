"""Searching and comparing versions by what their bundles and their lineage say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import NotFoundError, RefusedError, Registry, UsageError
from slm_registry.bundles.facts import MAX_LABELS, MAX_METRICS, check_facts, read_facts
from slm_registry.finding.search import make_query
from slm_registry.log.state import Version

from tests.registry.command_line import Cli
from tests.registry.helpers import LABELS
from tests.registry.recording import RecordingStore

NUMBERS = {"accuracy": 0.91, "macro_f1": 0.9, "p50_ms": 1.5}


def record(commit: str, **more: Any) -> dict[str, Any]:
    """A lineage as the factory's flow records it."""
    return {
        "git": {"commit": commit, "dirty": False},
        "dvc_lock_sha256": "d" * 64,
        "recipe": {"distill": {"losses": {"kl": 1.0}}, "prune": {"steps": 2}},
        "data_sha256": "a" * 64,
        "teacher": {"source": "package:teacher/model", "sha256": "b" * 64},
        "metrics": {"accuracy": 0.5},
        **more,
    }


@pytest.fixture
def filled(registry: Registry, bundle: Path, other_bundle: Path) -> Registry:
    """m@1.0.0 and m@1.1.0, of which the second is more accurate and of another commit; n@1.0.0 without metrics."""
    metrics = {
        "model": NUMBERS,
        "teacher": {"accuracy": 0.95},
        "comparison": {"size_ratio": 9.0},
        "run": {"machine": "x"},
    }
    (bundle / "metrics.json").write_text(json.dumps(metrics))
    registry.publish(bundle, "m", version="1.0.0", lineage=record("c" * 40))
    metrics["model"] = {**NUMBERS, "accuracy": 0.93}
    (bundle / "metrics.json").write_text(json.dumps(metrics))
    (bundle / "extra.md").write_text("more")
    recipe = {"distill": {"losses": {"kl": 0.5}}, "prune": {"steps": 2}, "quantize": {"per_channel": True}}
    registry.publish(bundle, "m", version="1.1.0", lineage=record("e" * 40, recipe=recipe), alias="production")
    registry.publish(other_bundle, "n", version="1.0.0", lineage={"git_commit": "f" * 40, "task": "routing"})
    return registry


def found(registry: Registry, name: str | None = None, **asked: Any) -> list[str]:
    return [f"{row.model}@{row.version}" for row in registry.search(name, **asked)]


def test_a_recipes_word_for_a_task_and_the_hubs_are_one(registry: Registry, bundle: Path) -> None:
    made = {"bundle": {"task": {"type": "text-to-text"}}}
    registry.publish(bundle, "m", lineage=made)
    assert found(registry, task="text-to-text") == found(registry, task="text2text-generation") == ["m@1.0.0"]
    assert read_facts(bundle, made)["task"] == "text2text-generation"
    with pytest.raises(NotFoundError, match="did you mean 'text2text-generation'"):
        registry.search(task="text2text-generatio")
    # Entries of before bear the recipe's word.
    old = Version("sha256:1", 1, 1, "a", "", "", {"task": "text-to-text"})
    assert make_query(task="text2text-generation", metrics=[], size=None, label=None, lineage={}, yanked=False).takes(
        old
    )


def test_what_is_found(filled: Registry) -> None:
    both = ["m@1.1.0", "m@1.0.0"]
    assert found(filled) == [*both, "n@1.0.0"]
    assert found(filled, "n") == ["n@1.0.0"]
    assert found(filled, task="text-classification") == both
    assert found(filled, task="routing") == ["n@1.0.0"]
    assert found(filled, metrics=["accuracy>=0.92"]) == ["m@1.1.0"]
    assert found(filled, metrics=["accuracy>0.9", "p50_ms < 2"]) == both
    assert found(filled, metrics=["teacher.accuracy==0.95", "comparison.size_ratio>8"]) == both
    assert found(filled, metrics=["accuracy<0.5"]) == []
    assert found(filled, label=LABELS[0], size="<1MB") == [*both, "n@1.0.0"]
    assert found(filled, size=">1MB") == []
    assert found(filled, data="sha256:" + "a" * 64) == both
    assert found(filled, data="a" * 8) == both
    assert found(filled, teacher="b" * 64) == found(filled, teacher="package:teacher/model") == both
    assert found(filled, git="e" * 7) == ["m@1.1.0"]
    assert found(filled, git="e" * 6) == []
    assert found(filled, git="f" * 40) == ["n@1.0.0"]


def test_yanked_versions_are_found_when_asked_for(filled: Registry) -> None:
    filled.yank("n", "1.0.0")
    assert found(filled, "n") == []
    assert found(filled, "n", yanked=True) == ["n@1.0.0"]
    assert filled.search("n", yanked=True)[0].status == "yanked"


def test_a_word_that_is_in_no_version_is_named_with_near_ones(filled: Registry) -> None:
    for asked, hint in (
        ({"metrics": ["acuracy>=0.8"]}, "metric 'acuracy'; did you mean 'accuracy'"),
        ({"task": "text-clasification"}, "did you mean 'text-classification'"),
        ({"label": "refunds"}, "label 'refunds'; did you mean 'refund'"),
    ):
        with pytest.raises(NotFoundError, match=hint):
            filled.search(**asked)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="no model"):
        filled.search("mm")


def test_a_search_reads_no_blob(filled: Registry) -> None:
    recorded = RecordingStore(filled.store)
    assert len(Registry(recorded).search(metrics=["accuracy>0"])) == 2
    assert len(recorded.calls) == 1 + 3 * 2
    assert not any("blobs/" in str(call[1]) for call in recorded.calls)


@pytest.mark.parametrize(
    "text", ["accuracy", "accuracy>=", ">=0.8", "accuracy=>1", "a b>1", "accuracy>=0.8x", "a>nan", ""]
)
def test_what_is_no_condition(folder_registry: Registry, text: str) -> None:
    with pytest.raises(UsageError, match="no condition"):
        folder_registry.search(metrics=[text])


@pytest.mark.parametrize("text", ["20MB", "<20XB", "<", "<-", "<1 M B", ""])
def test_what_is_no_size(folder_registry: Registry, text: str) -> None:
    with pytest.raises(UsageError, match="size"):
        folder_registry.search(size=text)


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_a_usage_error(text: str) -> None:
    for asked in ({"metrics": [text], "size": None}, {"metrics": [], "size": text}):
        try:
            make_query(task=None, label=None, lineage={}, yanked=False, **asked)  # type: ignore[arg-type]
        except UsageError as error:
            assert len(str(error)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=300), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["git", "data_sha256", "teacher", "metrics", "task", "x"]), JSON))
def test_whatever_a_lineage_holds_its_facts_can_be_recorded(tmp_path_factory: Any, lineage: dict[str, Any]) -> None:
    check_facts(read_facts(tmp_path_factory.getbasetemp() / "no-bundle", lineage))


def test_facts_are_bounded(tmp_path: Path) -> None:
    labels = {str(number): f"label-{number}" for number in range(5000)}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    (tmp_path / "metrics.json").write_text(json.dumps({f"m{number}": number for number in range(5000)}))
    facts = read_facts(tmp_path, {})
    check_facts(facts)
    assert facts["label_count"] == 5000
    assert 0 < len(facts["labels"]) <= MAX_LABELS
    assert len(facts["metrics"]) == MAX_METRICS
    assert len(json.dumps(facts)) < 16_000


def test_broken_metrics_are_refused_before_anything_is_written(folder_registry: Registry, bundle: Path) -> None:
    (bundle / "metrics.json").write_text("{")
    with pytest.raises(RefusedError, match=r"metrics\.json"):
        folder_registry.publish(bundle, "m", lineage={})
    assert folder_registry.models() == ()


def test_two_versions_compared(filled: Registry) -> None:
    result = filled.compare("m@1.0.0", "m@production")
    assert (result.left, result.right) == ("m@1.0.0", "m@1.1.0")
    metrics = {pair.name: (pair.left, pair.right) for pair in result.metrics}
    assert metrics["accuracy"] == (0.91, 0.93)
    assert metrics["p50_ms"] == (1.5, 1.5)
    assert result.size.right - result.size.left == len("more")
    files = {pair.name: (pair.left is None, pair.right is None) for pair in result.files}
    assert files == {"metrics.json": (False, False), "extra.md": (True, False)}
    assert {pair.name: (pair.left, pair.right) for pair in result.recipe} == {
        "distill.losses.kl": (1.0, 0.5),
        "quantize.per_channel": (None, True),
    }
    assert [pair.name for pair in result.origin] == ["git"]


def test_on_the_command_line(cli: Cli, filled: Registry) -> None:
    (row,) = cli.json("search", "--metric", "accuracy>=0.92", "--task", "text-classification")
    assert (row["model"], row["version"], row["aliases"]) == ("m", "1.1.0", ["production"])
    text = cli("search", "--metric", "accuracy>=0.9", "--git", "c" * 9)
    assert text.splitlines()[0].split()[:6] == ["model", "version", "aliases", "status", "size", "accuracy"]
    assert "0.91" in text.splitlines()[1]
    assert len(cli.json("search", "--size", "<1MB", "m")) == 2
    cli("search", "--metric", "acuracy>1", code=3)
    cli("search", "--metric", "accuracy", code=2)
    compared = cli("compare", "m@1.0.0", "m@1.1.0")
    assert "+0.02" in compared
    assert "distill.losses.kl" in compared
    assert cli("compare", "m", "m").count("no difference") == 3
    assert cli.json("compare", "m@1.0.0", "m@1.1.0")["size"]["name"] == "size"
