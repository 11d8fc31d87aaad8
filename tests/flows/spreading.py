"""`python -m tests.flows.spreading WHAT FOLDER WORKERS`: a process that spreads work, as a stage is one: Prefect finds its server at import."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from flows import clusters, fanout
from pipelines.__main__ import _stop
from pipelines.fanning import VARIABLE, Fan, Serial
from tests.flows.works import Doing, Missing

CASES = (["one", "two", "refuse", "three"], ["diverge"], ["break"])


def outcome(fan: Fan, work: Any, items: list[str], most: int) -> dict[str, Any]:
    """The answers until `most` or an error, and the error."""
    got: list[str] = []
    answers = fan.map(work, items)
    try:
        for _ in range(most):
            got.append(next(answers))
    except Exception as error:
        notes = "".join(getattr(error, "__notes__", []))
        return {"got": got, "kind": type(error).__name__, "said": str(error), "notes": notes}
    return {"got": got}


def outcomes(folder: Path, workers: str, *last: tuple[list[str], int]) -> list[dict[str, Any]]:
    """What came of each case, of a work that cannot be opened, and of the last ones, in one flow: to start workers takes seconds."""
    cases: list[tuple[Any, list[str], int]] = [(Doing(folder), items, len(items)) for items in CASES]
    cases += [(Missing(), ["one"], 1), *((Doing(folder), items, most) for items, most in last)]
    return fanout.fanned(workers, lambda fan: [outcome(fan, *case) for case in cases], "try", 1)


def same(folder: Path) -> dict[str, Any]:
    """Exported files, answers and a recovered model, here and in two processes."""
    from pipelines.exploring.building import build_chosen
    from tests.flows.untaught import a_point, boundless, exported, untaught

    workshop, recovering = untaught(folder)
    points = [a_point(part, order) for order, part in enumerate((workshop.space[0], workshop.space[-1]))]
    here = exported(Serial(), workshop, folder / "here")
    bundle, records, point = build_chosen(recovering, points, boundless())
    there = fanout.fanned("processes:2", lambda fan: exported(fan, workshop, folder / "there"), "try", 1)
    os.environ[VARIABLE] = "flows.fanout:processes:2"
    again, records_there, point_there = build_chosen(recovering, points, boundless())
    weights, theirs = bundle.model.state_dict(), again.model.state_dict()
    return {
        "files": len(here[0]),
        "exports": here == there,
        "records": records == records_there and point == point_there == points[0],
        "weights": weights.keys() == theirs.keys()
        and all(bool((weights[key] == theirs[key]).all()) for key in weights),
    }


def main(what: str, folder: Path, workers: str) -> None:
    """Print what came of it as JSON."""
    signal.signal(signal.SIGTERM, _stop)
    clusters._cores = lambda: 2
    if what == "sleep":
        fanout.fanned(workers, lambda fan: outcome(fan, Doing(folder), ["sleep", "sleep"], 2), "try", 1)
    elif what == "same":
        print(json.dumps(same(folder)))
    elif what == "idle":
        answer = fanout.fanned(workers, lambda fan: outcome(fan, Doing(folder), ["one", "sleep", "sleep"], 1), "try", 1)
        print(json.dumps(answer))
    else:
        print(json.dumps(outcomes(folder, workers, *([(["die"], 1)] if what == "killed" else []))))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
