"""`python -m flows build|new|reproduce NAME`: the factory from the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from pipelines.environment import disable_telemetry
from pipelines.errors import FactoryError

if TYPE_CHECKING:
    from flows.build import BuildResult


TASKS = ("text-classification", "token-classification", "text-generation", "text-to-text")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m flows", description="Build small models, and write recipes for new ones."
    )
    commands = top.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="run what is stale, then publish", description="Run what DVC finds stale, gate, publish."
    )
    build.add_argument("name", help="name of a recipe in params.yaml")
    build.add_argument(
        "--publish", metavar="URL", help="registry to publish to: a folder or s3://BUCKET/PREFIX (default: build only)"
    )
    build.add_argument(
        "--alias", default="candidate", help="alias that points at the published version (default: candidate)"
    )
    build.add_argument(
        "--budget", metavar="BOUNDS", help="what the model may cost, as in '12MB 2ms 6pt'; written into its recipe"
    )
    _add_workers(build)
    build.add_argument("--plan", action="store_true", help="only show which stages would run, and why")
    front = commands.add_parser(
        "explore",
        help="measure what a student's shapes cost and reach",
        description="Run what is stale up to the front, and show it.",
    )
    front.add_argument("name", help="name of a recipe in params.yaml whose student is elastic")
    _add_workers(front)
    again = commands.add_parser(
        "reproduce", help="build twice, compare the bytes", description="Build the commit twice from scratch."
    )
    again.add_argument("name", help="name of a recipe in params.yaml")
    new = commands.add_parser(
        "new", help="write a recipe for a data set", description="Look at a file and append a recipe to params.yaml."
    )
    new.add_argument("name", help="name of the new recipe")
    new.add_argument(
        "--data",
        metavar="FILE",
        required=True,
        type=Path,
        help="CSV, JSONL or Parquet file, or a folder with train/validation/test",
    )
    new.add_argument("--task", choices=TASKS, required=True, help="what the model is for")
    new.add_argument(
        "--teacher",
        metavar="SOURCE",
        help="a pretrained encoder: a folder, hub:ORG/NAME@REVISION or package:NAME/FOLDER (text-classification; default: MiniLM)",
    )
    new.add_argument(
        "--budget",
        metavar="BOUNDS",
        help="what the model may cost, as in '12MB 2ms 6pt': its shape is searched for (not of text-to-text)",
    )
    new.add_argument("--text-column", metavar="NAME", help="column of the texts (default: guessed, as the next ones)")
    new.add_argument("--label-column", metavar="NAME", help="column of the labels (text-classification)")
    new.add_argument("--tags-column", metavar="NAME", help="column of a BIO tag a word (token-classification)")
    new.add_argument("--target-column", metavar="NAME", help="column of the answers (text-to-text)")
    return top


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        metavar="WHERE",
        help="spread a front's parts over processes:N, dask:ADDRESS or ray:ADDRESS (default: one after the other)",
    )


def build_command(
    name: str, publish: str | None, alias: str, plan_only: bool, budget: str | None, workers: str | None
) -> int:
    """Build one model, or only show its plan; the exit code."""
    from flows.graph import find_root, make_plan
    from pipelines.config import load_recipe

    root = find_root(Path.cwd())
    load_recipe(root / "params.yaml", name)
    if budget is not None:
        from flows.budget import write_budget

        write_budget(root / "params.yaml", name, budget)
    if plan_only:
        from rich.console import Console

        from flows.console import show_plan

        show_plan(make_plan(root, name), Console())
        return 0
    _report(root, _run_flow(root, name, publish, alias, None, workers))
    return 0


def explore_command(name: str, workers: str | None) -> int:
    """Run what is stale up to the front of one model, and show it; the exit code."""
    from rich.console import Console

    from flows.budget import LOSSES, yardstick_at
    from flows.console import show_front
    from flows.graph import find_root, make_plan
    from pipelines.config import NoTechnique, load_recipe
    from pipelines.errors import RecipeError
    from pipelines.exploring.front import PAGE, read_front

    root = find_root(Path.cwd())
    recipe = load_recipe(root / "params.yaml", name)
    yardstick = yardstick_at(f"models.{name}", recipe.task)
    if isinstance(recipe.explore, NoTechnique):
        raise RecipeError(
            f"models.{name}.explore.technique is none, there is nothing to explore; write a recipe that a budget shapes with "
            f"`python -m flows new NAME --data FILE --task {recipe.task.type} --budget '{LOSSES[yardstick.key][1]}'`"
        )
    _run_flow(root, name, None, "", "explore", workers)
    folder = make_plan(root, name).out("front")
    show_front(read_front(root / folder).points, yardstick, Console())
    print(f"page       {os.path.relpath(root / folder / PAGE)}")
    return 0


def reproduce_command(name: str) -> int:
    """Build one model twice from scratch; the exit code."""
    from flows.graph import find_root
    from flows.reproduce import reproduce
    from pipelines.config import load_recipe

    root = find_root(Path.cwd())
    load_recipe(root / "params.yaml", name)
    return reproduce(root, name)


def _run_flow(
    root: Path, name: str, publish: str | None, alias: str, until: str | None, workers: str | None
) -> BuildResult:
    """The flow against a server of its own; what it leaves. Raises what the flow failed with."""
    from flows.console import LOG_FORMATS
    from flows.server import prefect_api

    for key, value in LOG_FORMATS.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("PREFECT_HOME", str(root / ".prefect"))
    signal.signal(signal.SIGTERM, _terminate)
    with prefect_api(meanwhile=_import_the_rest):
        from flows.build import BuildResult, build

        state = build(model=name, publish=publish, alias=alias, until=until, workers=workers, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    if not isinstance(result, BuildResult):
        raise SystemExit(f"the build ended as {state.name}: {state.message}")
    return result


def _import_the_rest() -> None:
    """Import what the flow needs while the server starts."""
    import dvc.repo  # noqa: F401

    import flows.build  # noqa: F401


def _report(root: Path, result: BuildResult) -> None:
    """The result's table, the report's place, the next commands."""
    from prefect.settings import PREFECT_HOME
    from rich.console import Console

    from flows.console import next_commands, show_result
    from flows.record import read_json
    from pipelines.config import load_recipe

    console, publication = Console(), result.publication
    if result.metrics:
        show_result(read_json(root / result.metrics), publication is not None, console)
    lines = [f"report     {os.path.relpath(root / result.report)}"] if result.report else []
    if publication:
        word = "published" if publication.created else "unchanged"
        lines.append(f"{word}  {publication.model} {publication.version} as {publication.alias} in {publication.url}")
    url, alias = (publication.url, publication.alias) if publication else (None, "")
    task = load_recipe(root / "params.yaml", result.model).task.type
    commands = next_commands(result.model, task, url, alias, Path(PREFECT_HOME.value()))
    print("\n".join([*lines, "next:", *(f"  {command}" for command in commands)]))


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main(argv: Sequence[str]) -> int:
    """Run one command; errors meant for the user are one message on stderr and an exit code."""
    disable_telemetry()
    given = parser().parse_args(argv)
    if given.command == "build" and given.plan and given.budget:
        parser().error("--plan changes nothing and --budget writes into params.yaml: leave one of them out")
    from slm_registry.errors import RegistryError

    from flows.errors import FlowError

    try:
        if given.command == "new":
            from flows.new import Columns, new_recipe

            others = {key: getattr(given, key) for key in ("label_column", "tags_column", "target_column")}
            columns = Columns(given.text_column, others)
            params = Path("params.yaml")
            return new_recipe(params, given.name, given.data, given.task, columns, given.teacher, given.budget)
        if given.command == "reproduce":
            return reproduce_command(given.name)
        if given.command == "explore":
            return explore_command(given.name, given.workers)
        return build_command(given.name, given.publish, given.alias, given.plan, given.budget, given.workers)
    except (FlowError, FactoryError, RegistryError) as error:
        kind = getattr(error, "kind", type(error).__name__)
        print(f"{kind}: {getattr(error, 'message', error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what is finished stays finished, run the same command again for the rest", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
