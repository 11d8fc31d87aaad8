"""The part of DVC's index that one model's plan needs: all of it takes DVC a minute where a project has a thousand, three and a half once they are built."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.lockfile import text_of_stages

#: Where a stage of dvc.yaml says what it writes, and how it names the model.
WRITTEN = ("outs", "metrics", "plots")
KEY = "${key}"
#: Any of dvc.yaml's placeholders, once `re.escape` has been at it.
PLACEHOLDER = re.compile(r"\\\$\\{.*?\\}")


def index_for(repo: Any, model: str | None) -> Any:
    """DVC's `Index` with a model's stages, those of no model, and every .dvc file; the whole one where there is no such model, or none is named.

    So it is too where a stage of this model may read what another model's stage writes.
    """
    from dvc.dvcfile import LOCK_FILE, PROJECT_FILE, load_file
    from dvc.repo.index import Index

    file = Path(repo.root_dir, PROJECT_FILE)
    if model is None or not file.exists():
        return repo.index
    project = load_file(repo, str(file))
    record = _part_of_record(file.with_name(LOCK_FILE), model)
    if record is None:
        return repo.index
    loader = project.LOADER(project, project.contents, record)
    own = [name for name in loader if _is_of(name, model)]
    if not own:
        return repo.index
    stages = [loader[name] for name in loader if name in own or name in loader.stages_data]
    templates = set(_templates(loader.stages_data.values()))
    written = {place_of(out, repo.root_dir) for stage in stages for out in stage.outs}
    for other in _other_files(repo, file, written, templates):
        stages += Index.from_file(repo, str(other)).stages
    found = Index(repo, stages=stages)
    return repo.index if _may_read_anothers(found, model, templates) else found


def _is_of(stage: str, model: str) -> bool:
    return stage.endswith(f"@{model}")


def _part_of_record(path: Path, model: str) -> dict[str, Any] | None:
    """What dvc.lock holds of a model's stages and of those of none; None where DVC could not read it."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    from voluptuous import Invalid

    if not path.exists():
        return {}
    try:
        text = text_of_stages(path, lambda name: "@" not in name or _is_of(name, model))
        found: dict[str, Any] = parse_yaml(text, str(path))
        COMPILED_LOCKFILE_SCHEMA(found)
    except (YAMLFileCorruptedError, Invalid, UnicodeDecodeError):
        return None
    return found


def _other_files(repo: Any, file: Path, written: Collection[str], templates: Collection[str]) -> Iterator[Path]:
    """Every other file of stages, where DVC looks for them: in no output, and below no folder that git or DVC ignores."""
    from dvc.dvcfile import is_valid_filename

    made = [re.compile(PLACEHOLDER.sub(".+", re.escape(template))) for template in templates]
    for folder, folders, names in repo.dvcignore.walk(repo.fs, repo.root_dir, followlinks=False):
        places = {name: os.path.relpath(os.path.join(folder, name), repo.root_dir) for name in folders}  # noqa: PTH118
        folders[:] = [
            name
            for name, place in places.items()
            if not repo.scm.is_ignored(f"{folder}/{name}/")
            and place not in written
            and not any(one.fullmatch(place) for one in made)
        ]
        paths = [Path(folder, name) for name in names if is_valid_filename(name)]
        yield from (path for path in paths if path != file and not repo.scm.is_ignored(str(path)))


def _may_read_anothers(index: Any, model: str, templates: Collection[str]) -> bool:
    """Whether some dependency that these stages do not write lies where another model's may write, or around it."""
    root = index.repo.root_dir
    read = {place_of(dependency, root) for stage in index.stages for dependency in stage.deps}
    written = {place_of(out, root) for out in index.outs}
    elsewhere = [place for place in read if not any(place == out or place.startswith(f"{out}/") for out in written)]
    return any(_meets(place, template, model) for template in templates for place in elsewhere)


def _templates(definitions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The path of each output that is written once a model, as dvc.yaml has it; only a placeholder where that is no path below the project."""
    for definition in definitions:
        body = definition.get("do", definition)
        if body is definition and "matrix" not in definition:
            continue  # one stage, which is among those that are loaded
        for key in WRITTEN:
            entries = body.get(key, [])
            if "wdir" in body or not isinstance(entries, list):
                yield "${item}"
                continue
            for entry in entries:
                path = posixpath.normpath(next(iter(entry)) if isinstance(entry, Mapping) else entry)
                yield "${item}" if path.startswith(("/", "..")) or ":/" in path else path


def _meets(place: str, template: str, model: str) -> bool:
    """Whether a path may be, hold or lie in what a template stands for with the key of another model."""
    if "${" in template.replace(KEY, ""):
        head = template.partition("${")[0]
        return place.startswith(head) or head.startswith(f"{place}/")
    for given, wanted in zip(place.split("/"), template.split("/"), strict=False):
        found = re.fullmatch(re.escape(wanted).replace(re.escape(KEY), "(.+)"), given)
        if found is None or model in found.groups():
            return False
    return True


def place_of(thing: Any, root: str | Path) -> str:
    """Where an output or a dependency of DVC's lies: relative to the project's root, or its address where it lies outside."""
    return os.path.relpath(thing.fs_path, root) if thing.is_in_repo else str(thing)
