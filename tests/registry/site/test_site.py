"""The folder that `slm-registry site` writes: the same bytes for the same log, brought up to date page by page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import Registry, errors
from slm_registry.cli import main
from slm_registry.plumbing.printable import counted
from slm_registry.site import words, writing
from slm_registry.site.collect import Model, Release
from slm_registry.site.lineage import story
from slm_registry.site.measures import KNOWN, main_of, on_axis, present, side, written
from slm_registry.site.pages import Pages, summary
from slm_registry.site.writing import write_site

from tests.registry.site.demo import fill


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("demo") / "store"
    fill(store)
    return store


def write(store: Path | str, out: Path) -> writing.Written:
    return write_site(Registry(store, cache=out.parent / "cache"), out, title="Models", address=None)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_log_gives_the_same_bytes(filled: Path, tmp_path: Path) -> None:
    assert write(filled, tmp_path / "a").written == 4
    write(filled, tmp_path / "b")
    found = files(tmp_path / "a")
    assert found == files(tmp_path / "b")
    assert len(found) == 6
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["a", "b"]


def test_only_what_changed_is_read_and_written(
    folder_registry: Registry, bundle: Path, other_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "site"
    for name in ("one", "two"):
        folder_registry.publish(bundle, name, lineage={})
    write(tmp_path / "store", out)
    untouched = (out / "models" / "one.html").stat().st_mtime_ns
    folder_registry.publish(other_bundle, "two", lineage={})
    shown: list[str] = []
    show = Registry.show
    monkeypatch.setattr(Registry, "show", lambda self, ref: (shown.append(ref), show(self, ref))[1])
    done = write(tmp_path / "store", out)
    assert (done.written, done.unchanged, done.removed) == (1, 1, 0)
    assert shown == ["two@1.0.1", "two@1.0.0"]
    assert (out / "models" / "one.html").stat().st_mtime_ns == untouched
    assert "1.0.1" in (out / "index.html").read_text()
    # A page that somebody altered is made anew, and a model that is gone loses its page.
    (out / "models" / "one.html").write_text("x")
    (out / "models" / "gone.html").write_text("x")
    done = write(tmp_path / "store", out)
    assert (done.written, done.unchanged, done.removed) == (1, 1, 1)
    fresh = tmp_path / "fresh"
    write(tmp_path / "store", fresh)
    assert files(out) == files(fresh)


def test_a_failure_leaves_the_old_site(
    folder_registry: Registry, bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    folder_registry.publish(bundle, "one", lineage={})
    out = tmp_path / "site"
    write(tmp_path / "store", out)
    before = files(out)
    digest = folder_registry.publish(other_bundle, "one", lineage={}).digest
    blob = tmp_path / "store" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    blob.chmod(0o644)
    blob.write_bytes(b"{}")
    with pytest.raises(errors.CorruptError):
        write(tmp_path / "store", out)
    assert files(out) == before
    assert not list(tmp_path.glob(".site.*"))


def test_a_record_that_is_broken_costs_a_rewrite(folder_registry: Registry, bundle: Path, tmp_path: Path) -> None:
    folder_registry.publish(bundle, "one", lineage={})
    out = tmp_path / "site"
    write(tmp_path / "store", out)
    sound = files(out)
    told = json.loads((out / "catalogue.json").read_text())
    model = told["models"]["one"]
    odd: list[object] = [
        *(
            {**told, "models": {"one": held}}
            for held in (None, 1, [], {}, {"entry": model["entry"]}, {**model, "page": 1})
        ),
        *(
            {**told, "models": {"one": {**model, "summary": held}}}
            for held in (None, 1, {}, {**model["summary"], "at": 1})
        ),
        *({**told, "models": held} for held in (None, [], 1)),
        *([], None, {}, {**told, "maker": []}),
    ]
    for text in [*(json.dumps(record) for record in odd), "[" * 100_000, "{", "\xff"]:
        (out / "catalogue.json").write_text(text, encoding="latin-1")
        assert write(tmp_path / "store", out).written == 1, text[:400]
        assert files(out) == sound
    assert write(tmp_path / "store", out).written == 0


def test_the_index_comes_after_its_pages(
    folder_registry: Registry, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each replacement, what stands there has no link to a page that is not there."""
    out = tmp_path / "site"
    folder_registry.publish(bundle, "one", lineage={})
    write(tmp_path / "store", out)
    folder_registry.publish(bundle, "two", lineage={})
    folder_registry.publish(bundle, "three", lineage={})
    replace, looked = Path.replace, []

    def watched(self: Path, target: Path) -> Path:
        if out not in target.parents:
            return replace(self, target)
        linked = re.findall(r'href="(models/[^"]+)"', (out / "index.html").read_text())
        assert all((out / link).read_text().endswith("</html>\n") for link in linked)
        looked.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write(tmp_path / "store", out)
    assert looked == ["three.html", "two.html", "index.html", "catalogue.json"]


def test_an_empty_registry_and_both_stores(url: str, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    assert write(url, out).models == 0
    assert "holds no model yet" in (out / "index.html").read_text()
    Registry(url, cache=tmp_path / "cache", actor="a").publish(bundle, "one", lineage={})
    assert write(url, out).written == 1


def test_the_command(
    folder_registry: Registry, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_registry.publish(bundle, "one", lineage={})
    arguments = ["site", str(tmp_path / "site"), "--store", str(tmp_path / "store")]
    assert main([*arguments, "--json", "--title", "<b>Ours</b>", "--address", "s3://models/a"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 1
    page = (tmp_path / "site" / "models" / "one.html").read_text()
    assert "&lt;b&gt;Ours" in page
    assert "Registry(&#34;s3://models/a&#34;)" in page
    # Other options make other pages.
    assert main(arguments) == 0
    assert "1 model: 1 page written, 0 unchanged" in capsys.readouterr().out
    assert main(["site", str(bundle), "--store", str(tmp_path / "store")]) == 2
    assert "holds other files" in capsys.readouterr().err


def entry(op: str, **details: object) -> dict[str, object]:
    return {"seq": 1, "op": op, "actor": "a", "at": "2026-11-21T03:27:21+00:00", "reason": "", "nonce": "n", **details}


EVENT = words.event(entry("publish", version="1.0.0", size=1))


def test_words_of_known_and_unknown_operations() -> None:
    moved = words.event(entry("alias", alias="production", version="1.0.0", expected="1.1.0"))
    assert moved.what == "Moved production back from 1.1.0 to 1.0.0"
    digests = {"evaluation": "sha256:1", "policy": "sha256:2"}
    promoted = words.event(entry("promote", alias="production", version="1.1.0", expected=None, **digests))
    assert promoted.what == "Promoted 1.1.0 to production"
    assert promoted.extras == (("evaluation", "sha256:1"), ("policy", "sha256:2"))
    assert words.event(entry("yank", version="1.0.0")).what == "Yanked 1.0.0"
    other = words.event(entry("bless{0}", version="1.0.0", by="x"))
    assert (other.what, other.extras) == ("bless0", (("by", "x"), ("version", "1.0.0")))


def test_marks_are_the_fold_of_the_log() -> None:
    log = tuple(entry(op, version="1.0.0") for op in ("yank", "deprecate", "unyank", "undeprecate", "deprecate"))
    assert words.marks(log) == {"1.0.0": {"deprecated": ""}}
    assert words.marks(log[:1]) == {"1.0.0": {"yanked": ""}}


def test_numbers_that_cannot_be_true_are_left_out() -> None:
    found = side(
        {"accuracy": 7, "macro_f1": 0.5, "bytes": -1, "p50_ms": float("inf"), "x": True, "y": 10**400, "z": 1}, "model"
    )
    assert found == {"macro_f1": 0.5, "z": 1.0}
    assert [written("share", 0.8277), written("ms", 1.5679), written("number", 1234.5)] == [
        "82.77 %",
        "1.57 ms",
        "1,234",
    ]
    assert [written("bytes", value) for value in (999, 1000, 2.5e9, 1e16)] == [
        "999 B",
        "1.0 kB",
        "2.5 GB",
        "10000.0 TB",
    ]


def test_the_values_of_an_axis_can_be_told_apart() -> None:
    assert on_axis("bytes", (2050.0, 2100.0)) == ("2.05 kB", "2.10 kB")
    assert on_axis("bytes", (0.0, 500.0)) == ("0 B", "500 B")
    assert on_axis("bytes", (10e6, 15e6)) == ("10 MB", "15 MB")
    assert on_axis("share", (0.8, 0.825)) == ("80.0 %", "82.5 %")
    assert on_axis("ms", (1.5, 2.0)) == ("1.5 ms", "2.0 ms")
    assert on_axis("number", (-1e300, 1e300)) == ("-1e+300", "1e+300")
    assert on_axis("number", ()) == ()


@pytest.mark.parametrize(("number", "said"), [(0, "0 log entries"), (1, "1 log entry"), (2, "2 log entries")])
def test_a_count_agrees_with_its_noun(number: int, said: str) -> None:
    assert counted(number, "log entry", "log entries") == said
    assert counted(1, "model") + counted(2, "model") == "1 model2 models"


FIGURES = (
    st.floats() | st.integers() | st.sampled_from([1e-322, 5e-324, -5e-324, 2.3e-308, 1e300, 9e299, 1e308, 10**400])
)
SIDES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high", "p50_ms", "bytes", "zz"), FIGURES)
)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=5))
def test_any_figures_are_drawn(sides: list[tuple[dict[str, float], dict[str, float]]]) -> None:
    metrics = [{"model": model, "teacher": teacher} for model, teacher in sides]
    releases = [release(f"1.0.{at}", found) for at, found in enumerate(metrics)]
    model = Model("m", "", tuple(releases), len(releases), (EVENT,), 1, (), releases[0], None)
    assert "1.0.0" in Pages("Models", None).model(model)
    assert summary(model)["current"] == "1.0.0"


def release(version: str, found: dict[str, dict[str, float]]) -> Release:
    mine = {"bytes": 1000.0} | side(found, "model")
    return Release(version, "", (), 1, "a", "", "", {}, (), story({}), mine, side(found, "teacher"), main_of(found))


WRITER = {"bits_per_byte": 1.25, "perplexity": 9.4, "chrf": 31.2, "first_token_ms": 4.0, "tokens_per_s": 250.0}
HEAVY = {"bits_per_byte": 1.2, "perplexity": 9.0, "chrf": 33.0, "first_token_ms": 8.0, "tokens_per_s": 100.0}


def page_of(main: str, *sides: dict[str, dict[str, float]]) -> tuple[str, dict[str, object]]:
    """The page and the index's row of a model of some versions, newest first."""
    metrics = [found | {"run": {"main_metric": main}} for found in sides]
    releases = tuple(release(f"1.0.{len(metrics) - at}", found) for at, found in enumerate(metrics))
    model = Model("m", "", releases, len(releases), (EVENT,), 1, (), releases[0], None)
    return Pages("Models", None).model(model), summary(model)


def test_a_generator_is_judged_by_its_main_metric() -> None:
    page, row = page_of(
        "bits_per_byte",
        {"model": WRITER, "teacher": HEAVY | {"bytes": 9e6}},
        {"model": WRITER | {"bits_per_byte": 1.4}},
    )
    assert (row["quality"], row["figures"]) == ("Bits per byte", ["1.25", "1.0 kB", "4 ms"])
    assert "Down and left is better; a larger circle is slower" in page
    for name, way in (("Bits per byte", "less"), ("chrF", "more"), ("Time to first token", "less")):
        assert f'<figcaption>{name}<span class="muted small">{way} is better</span>' in page
    # Of what is no speed a ratio says nothing.
    assert "base model 1.2<" in page
    assert "2.0× faster than the base model" in page and "2.5× faster than the base model" in page
    assert page_of("chrf", {"model": WRITER})[1]["quality"] == "chrF"


@pytest.mark.parametrize("odd", ["bits", "zz", ""])
def test_a_main_metric_that_was_not_measured_is_passed_over(odd: str) -> None:
    assert page_of(odd, {"model": {"span_f1": 0.5, "accuracy": 0.9}})[1]["quality"] == "Span F1"
    assert page_of(odd, {"model": WRITER})[1]["quality"] == "Bits per byte"


def test_every_number_of_an_evaluation_is_known() -> None:
    from pipelines.reporting.sequence_tables import MEASURES

    assert {key for key, _, _ in MEASURES} <= {measure.key for measure in KNOWN}


def test_what_says_most_of_a_generator_is_shown() -> None:
    from pipelines.reporting.sequence_tables import MEASURES

    shown = [
        measure.key for measure in present([dict.fromkeys((key for key, _, _ in MEASURES if "span" not in key), 1.0)])
    ]
    assert {"bits_per_byte", "chrf", "bytes", "first_token_ms", "tokens_per_s", "perplexity"} <= set(shown)


@pytest.mark.parametrize(
    ("task", "method", "command"),
    [
        ("text-to-text", "generate", "generate"),
        ("text-generation", "generate", "generate"),
        ("token-classification", "predict", "predict"),
    ],
)
def test_the_snippets_call_what_a_model_has(task: str, method: str, command: str) -> None:
    made = replace(release("1.0.0", {"model": WRITER}), story=story({"task": {"type": task}}))
    page = Pages("Models", None).model(Model("m", "", (made,), 1, (EVENT,), 1, (), made, None))
    assert f"print(model.{method}([" in page and f"slm-registry {command} m@1.0.0" in page


def test_the_template_escapes_what_a_bundle_says(filled: Path, tmp_path: Path) -> None:
    write(filled, tmp_path / "site")
    for name in ("index.html", "models/zz-hostile.html"):
        page = (tmp_path / "site" / name).read_text()
        # Two scripts, both ours: one in the head, one at the end.
        assert page.count("<script>") == page.count("</script>") == 2
        assert not re.search(r"<(img|iframe|svg onload|link|object)", page)
        assert "\u202e" not in page
