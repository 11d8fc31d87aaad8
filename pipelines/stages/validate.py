"""validate: read the source, check every row, cut the splits, write the clean set."""

from __future__ import annotations

import shutil

from pipelines.config import Task, TextData
from pipelines.data.clean import write_clean
from pipelines.data.examining import examine, remaining_problems
from pipelines.data.expectations import audit
from pipelines.data.reports import failed_checks, failure, summary_line, write_report
from pipelines.data.sources import read_source
from pipelines.errors import DataError
from pipelines.stages import Output


def validate(source: str, clean: Output, report: Output, task: Task, data: TextData) -> None:
    """Read the source, check every row, cut the splits, write the clean set and a report.

    Raises DataError where the source is unreadable or a check set to `fail` finds something; the report of such a run
    is kept beside the place of the good one, as `<report>.failed`.
    """
    kept = report.with_name(report.name.removesuffix(".partial") + ".failed")
    rows, files = read_source(source, data)
    examined = examine(rows, task, data)
    problems = remaining_problems(examined.clean, data.checks)
    report.mkdir(parents=True)
    verdicts = audit(examined, data, report / "docs")
    write_report(report, examined, verdicts, problems)
    failed = failed_checks(examined, verdicts)
    shutil.rmtree(kept, ignore_errors=True)
    if failed or problems:
        report.replace(kept)
        raise DataError(failure(source, examined, failed, problems, kept))
    broken = [f"{v.page}: {v.expectation}" for v in verdicts if v.page == "clean rows" and not v.success]
    if broken:
        raise DataError(
            f"{source}: rows that passed every check still break the contract of the clean set: {', '.join(broken)}"
        )
    write_clean(clean, examined.clean, files, data)
    print(summary_line(examined))
