"""The pages of the catalogue as text. Each is one file that fetches nothing; its policy lets no script run but ours."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from slm_registry.plumbing.printable import counted, size_text
from slm_registry.site import card, measures, plots, words
from slm_registry.site.collect import MAX_FILES, Model, Release
from slm_registry.site.measures import Measure

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = "templates"
_TILES = ("p50_ms", "texts_per_s", "first_token_ms", "tokens_per_s")
# Tasks whose models answer with texts of their own.
_WRITING = ("text-generation", "text2text-generation")
# What stands for how long a model takes: the answer of a classifier or tagger, the first token of what writes.
_LATENCY = ("p50_ms", "first_token_ms")


class Pages:
    """Renders pages under one title. The same model gives the same bytes."""

    def __init__(self, title: str, address: str | None) -> None:
        self._title = title
        self._address = address
        self._environment = _environment()

    def index(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """The page with all models, from the `summary` of each."""
        return self._render("index.html.j2", rows=rows, root="")

    def model(self, model: Model) -> str:
        """The page of one model."""
        from markupsafe import Markup

        html, _ = ("", "") if model.card is None else card.render(model.card)
        found = measures.present(release.model for release in model.releases)
        return self._render(
            "model.html.j2",
            root="../",
            model=model,
            current=model.current,
            card=Markup(html),
            plots=_plots(model, found),
            tiles=_tiles(model.current, _best(model, found)),
            columns=_columns(model, found),
            measures=found,
            selector=_selector(model),
            writes=model.current.story.task in _WRITING,
            address=self._address,
            max_files=MAX_FILES,
        )

    def _render(self, template: str, **values: Any) -> str:
        text = self._environment.get_template(template).render(title=self._title, **values)
        return text.rstrip("\n") + "\n"


def summary(model: Model) -> dict[str, Any]:
    """What the index says of a model, as JSON."""
    found = measures.present(release.model for release in model.releases)
    best = _best(model, found)
    current, numbers = model.current, model.current.model
    told = "" if model.card is None else card.render(model.card)[1]
    size = next(m for m in measures.KNOWN if m.key == "bytes")
    cells = [best, size, next((m for m in found if m.key in _LATENCY and m.key in numbers), None)]
    line = [] if best is None else [r.model[best.key] for r in reversed(model.releases) if best.key in r.model]
    facts = [value for _, value in current.story.facts]
    return {
        "name": model.name,
        "task": current.story.task,
        "summary": told,
        "aliases": [list(pair) for pair in model.aliases],
        "versions": model.versions,
        "current": current.version,
        "quality": None if best is None else best.label,
        "figures": [measures.written(m.kind, numbers[m.key]) if m and m.key in numbers else "" for m in cells],
        "spark": plots.spark(line[-30:]),
        "at": model.events[0].at,
        "search": " ".join([*facts, *(step.note for step in current.story.steps), current.actor]).lower()[:1500],
    }


def _plots(model: Model, found: Sequence[Measure]) -> dict[str, Any]:
    oldest_first = model.releases[::-1]
    lines = []
    for measure in found:
        key = measure.key
        values = [
            plots.Value(
                r.version, r.model[key], r.model.get(f"{key}_low"), r.model.get(f"{key}_high"), r == model.current
            )
            for r in oldest_first
            if key in r.model
        ]
        if len(values) > 1:
            lines.append(plots.over_versions(measure, values, model.current.teacher.get(key)))
    return {"lines": lines, "scatter": _scatter(model, _best(model, found))}


def _best(model: Model, found: Sequence[Measure]) -> Measure | None:
    return measures.quality(found, model.current.main)


def _latency(numbers: Mapping[str, float]) -> float | None:
    return next((numbers[key] for key in _LATENCY if key in numbers), None)


def _scatter(model: Model, best: Measure | None) -> plots.Plot | None:
    if best is None:
        return None
    points = [
        plots.Candidate(name, numbers["bytes"], numbers[best.key], _latency(numbers), role)
        for name, numbers, role in [
            *((r.version, r.model, "current" if r == model.current else "plain") for r in model.releases),
            ("base model", model.current.teacher, "teacher"),
        ]
        if best.key in numbers and numbers.get("bytes", 0) > 0 and (_latency(numbers) or 0) >= 0
    ]
    return plots.scatter(best, points) if len(points) > 1 else None


def _tiles(current: Release, best: Measure | None) -> list[tuple[str, str, str]]:
    """The figures at the head of a page: name, value, and what it is compared with."""
    wanted = [best, *(m for m in measures.KNOWN if m.key in ("bytes", *_TILES) and m != best)]
    tiles = []
    for measure in wanted:
        if measure is not None and measure.key in current.model:
            value = measures.written(measure.kind, current.model[measure.key])
            tiles.append((measure.label, value, _against_teacher(measure, current)))
    return tiles


def _against_teacher(measure: Measure, current: Release) -> str:
    mine, theirs = current.model[measure.key], current.teacher.get(measure.key)
    if theirs is None:
        return ""
    if measure.kind in ("share", "number"):
        return f"base model {measures.written(measure.kind, theirs)}"
    if min(mine, theirs) <= 0:
        return ""
    more, ratio = ("larger", "smaller") if measure.kind == "bytes" else ("slower", "faster"), theirs / mine
    if measure.more_is_better:
        ratio = 1 / ratio
    return f"{max(ratio, 1 / ratio):.1f}× {more[ratio >= 1]} than the base model"


def _columns(model: Model, found: Sequence[Measure]) -> list[Measure]:
    """The measures that the table of versions has a column for."""
    best = _best(model, found)
    return [m for m in found if m == best or m.key in ("bytes", *_TILES)]


def _selector(model: Model) -> str:
    """How the snippets name the current version: by its alias where it has one."""
    aliases = model.current.aliases
    preferred = "production" if "production" in aliases else next(iter(aliases), None)
    return f"{model.name}@{preferred or model.current.version}"


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("slm_registry.site", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Nothing that people wrote may hide or reorder what stands around it.
        finalize=lambda value: words.visible(value) if type(value) is str else value,
    )
    environment.filters |= {"size": size_text, "counted": counted, "day": words.day}
    environment.filters |= {"written": measures.written, "with_interval": measures.with_interval}
    parts = {name: _asset(name) for name in ("style.css", "theme.js", "page.js")}
    environment.globals |= {
        "style": Markup(parts["style.css"]),
        "theme_script": Markup(parts["theme.js"]),
        "page_script": Markup(parts["page.js"]),
        "policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src {_source(parts['style.css'])}; "
        f"script-src {_source(parts['theme.js'])} {_source(parts['page.js'])}",
    }
    return environment


def _asset(name: str) -> str:
    return resources.files("slm_registry.site").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
