"""`python -m pipelines STAGE MODEL --option PATH ...`: the command line, generated from the stage functions' signatures.

A parameter whose name is a section of the recipe is read from params.yaml; every other one is an option. Outputs are written
beside their place and moved there when the stage has succeeded, so an interrupted stage leaves nothing half-written.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import inspect
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, get_type_hints

from pipelines.alone import alone
from pipelines.config import SECTIONS, Recipe, load_recipe
from pipelines.environment import disable_telemetry, quiet_libraries
from pipelines.errors import DivergedError, FactoryError, ResourceError
from pipelines.ranks import ranks, together
from pipelines.stages import STAGES, Output, Resumable
from pipelines.trusting import permitted_code

#: The parameter of a stage that trains: where its trainings are kept.
KEEPER = "keeper"
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def stage_function(stage: str) -> Callable[..., None]:
    """The function of a stage: `pipelines.stages.<stage>.<stage>`."""
    function: Callable[..., None] = getattr(importlib.import_module(f"pipelines.stages.{stage}"), stage)
    return function


def options_of(function: Callable[..., None]) -> dict[str, Any]:
    """Command-line options of a stage function: name -> annotation (Path, Output or str)."""
    hints = get_type_hints(function, include_extras=True)
    return {name: hints[name] for name in inspect.signature(function).parameters if name not in (*SECTIONS, KEEPER)}


def sections_of(function: Callable[..., None]) -> list[str]:
    """Sections of the recipe that a stage function reads."""
    return [name for name in inspect.signature(function).parameters if name in SECTIONS]


def _parser(stage: str) -> argparse.ArgumentParser:
    function = stage_function(stage)
    parser = argparse.ArgumentParser(prog=f"python -m pipelines {stage}", description=inspect.getdoc(function))
    parser.add_argument("model", help="name of a recipe in params.yaml")
    parser.add_argument(
        "--params", type=Path, default=Path("params.yaml"), help="the file of recipes (default: params.yaml)"
    )
    for name, annotation in options_of(function).items():
        parser.add_argument(f"--{name}", type=str if annotation is str else Path, required=True)
    return parser


@contextmanager
def _finished_whole(
    arguments: dict[str, Any], outputs: Sequence[str], kept: Collection[str]
) -> Iterator[dict[str, Any]]:
    """Swap every output for a sibling `*.partial`; move them into place on success, drop them otherwise, but for the kept."""
    partial = {name: arguments[name].with_name(arguments[name].name + ".partial") for name in outputs}
    try:
        for name, path in partial.items():
            if name not in kept:
                _remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
        yield arguments | partial
        for name, path in partial.items():
            _remove(arguments[name])
            path.replace(arguments[name])
    finally:
        for name, path in partial.items():
            if name not in kept:
                _remove(path)


@contextmanager
def _for_nobody(arguments: dict[str, Any], outputs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Outputs of a process that only trains along: what the first one writes is what counts."""
    with tempfile.TemporaryDirectory(prefix="slm-rank-") as folder:
        yield arguments | {name: Path(folder, name) for name in outputs}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run(stage: str, argv: Sequence[str]) -> None:
    """Parse the options of one stage and run it, one that trains in as many processes as the environment asks for.

    Raises FactoryError with a message for the user.
    """
    function = stage_function(stage)
    given = vars(_parser(stage).parse_args(argv))
    recipe = load_recipe(given["params"], given["model"])
    # Of an API one process asks: each answer is paid for, and stored once.
    asks = stage == "teach" and recipe.teach.mode == "api"
    with together("pipelines.__main__", [stage, *argv]) if trains(function) and not asks else nullcontext():
        _run(stage, function, given, recipe)


def trains(function: Callable[..., None]) -> bool:
    """Whether a stage's function trains, and so keeps its trainings."""
    return KEEPER in inspect.signature(function).parameters


def _run(stage: str, function: Callable[..., None], given: Mapping[str, Any], recipe: Recipe) -> None:
    sections = {name: getattr(recipe, name) for name in sections_of(function)}
    options = options_of(function)
    arguments = {name: given[name] for name in options}
    outputs = [name for name, annotation in options.items() if annotation in (Output, Resumable)]
    kept = [name for name in outputs if options[name] == Resumable]
    first, is_first = arguments[outputs[0]], not trains(function) or ranks().index == 0
    finished = _finished_whole(arguments, outputs, kept) if is_first else _for_nobody(arguments, outputs)
    try:
        with (
            alone(first) if is_first else nullcontext(),
            _keeper_for(stage, first, arguments, outputs, sections, is_first) as keeper,
            permitted_code(recipe),
            finished as arguments,
        ):
            function(**arguments, **sections, **keeper)
    except FactoryError as error:
        if isinstance(error, DivergedError) and is_first:
            _keep_last_good(error, first)
        raise
    except Exception as error:
        raise _disk_trouble(error, first.parent) or _memory_trouble(error, stage) or error from error


@contextmanager
def _keeper_for(
    stage: str,
    first: Path,
    arguments: Mapping[str, Any],
    outputs: Collection[str],
    sections: Mapping[str, Any],
    is_first: bool,
) -> Iterator[dict[str, Any]]:
    """The place of a stage's trainings, under the name of its parameter; empty for a stage without any. Gone when it has succeeded.

    A process that only trains along reads what is kept there, and writes nothing.
    """
    if not trains(stage_function(stage)):
        yield {}
        return
    from pipelines.checkpoints import Reading, checkpoints_of

    inputs = {name: value for name, value in arguments.items() if name not in outputs}
    checkpoints = checkpoints_of(stage, first, inputs, sections)
    if not is_first:
        yield {KEEPER: Reading(checkpoints)}
        return
    checkpoints.open()
    try:
        yield {KEEPER: checkpoints}
    finally:
        checkpoints.close()
    checkpoints.remove()


def _keep_last_good(error: DivergedError, output: Path) -> None:
    """Keep the best epoch's model beside where the output would be."""
    if error.model is not None:
        folder = output.with_name(f"{output.name}.last-good")
        _remove(folder)
        error.model.save_pretrained(folder)
        error.args = (f"{error}; the best epoch's weights are in {folder}",)


def _memory_trouble(error: Exception, stage: str) -> ResourceError | None:
    """The error of memory that did not suffice, after all halving."""
    from pipelines.techniques.training import is_out_of_memory

    if not is_out_of_memory(error):
        return None
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ResourceError(
        f"{stage}: out of memory ({said}); lower its batch_size or task.max_length, or use a larger machine"
    )


def _disk_trouble(error: Exception, place: Path) -> ResourceError | None:
    """The error of a full or forbidden disk, also where a library wraps it in an exception of its own."""
    number = error.errno if isinstance(error, OSError) else None
    wrapped = re.search(r"\(os error (\d+)\)", str(error))
    if number is None and wrapped:
        number = int(wrapped.group(1))
    if number not in DISK_ERRORS:
        return None
    name = getattr(error, "filename", None) or os.fspath(place)
    return ResourceError(
        f"{name}: {os.strerror(number)}; free space or mend permissions, then run the same command again"
    )


def _stop(number: int, _frame: Any) -> None:
    raise SystemExit(128 + number)


def main(argv: Sequence[str]) -> int:
    """Run one stage; errors meant for the user are one message on stderr and an exit code from the tree."""
    disable_telemetry()
    quiet_libraries()
    parser = argparse.ArgumentParser(
        prog="python -m pipelines", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    stage = parser.parse_args(argv[:1]).stage
    signal.signal(signal.SIGTERM, _stop)  # unwinds, so that partial outputs go
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    try:
        run(stage, argv[1:])
    except FactoryError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{stage}: interrupted; nothing was written, run the same command again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
