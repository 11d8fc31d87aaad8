"""What a person reads afterwards: report.json, quarantine.csv, and the one message of a failed validation."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.data.clean import write_json
from pipelines.data.examining import Examined, Finding
from pipelines.data.expectations import Verdict
from pipelines.data.rows import UNLABELLED, Row, described

EXAMPLES = 5
QUARANTINE = ["split", "file", "line", "text", "label", "check", "reason"]


def write_report(folder: Path, examined: Examined, verdicts: Sequence[Verdict], problems: Sequence[str]) -> None:
    """report.json and quarantine.csv, the same bytes for the same rows."""
    report = {
        "passed": not (failed_checks(examined, verdicts) or problems),
        "rows": {"read": _counts(examined.rows), "clean": _counts(examined.clean)},
        "checks": {finding.check: _summary(finding, examined.rows) for finding in examined.findings},
        "problems": list(problems),
        "expectations": [verdict.__dict__ for verdict in verdicts],
    }
    write_json(folder / "report.json", report)
    found = [(i, finding) for finding in examined.findings for i in finding.rows]
    with (folder / "quarantine.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(QUARANTINE)
        for i, finding in sorted(found, key=lambda item: item[0]):
            writer.writerow([*examined.rows[i], finding.check, finding.rows[i]])


def failed_checks(examined: Examined, verdicts: Sequence[Verdict]) -> list[Finding]:
    """The checks that Great Expectations found violated and the recipe sets to `fail`. Unlabelled rows never fail."""
    violated = {verdict.check for verdict in verdicts if not verdict.success and verdict.page == "rows as read"}
    return [finding for finding in examined.findings if finding.check in violated and finding.action == "fail"]


def failure(source: str, examined: Examined, failed: Sequence[Finding], problems: Sequence[str], kept: Path) -> str:
    """What is wrong, where, and where to look: each failed check with its count and first rows."""
    lines = [f"{source}: the data does not pass ({len(failed)} check(s) failed, {len(problems)} other problem(s))"]
    for finding in failed:
        rows = [i for i in finding.rows if examined.rows[i].split != UNLABELLED]
        lines.append(f"  {finding.check}: {len(rows)} row(s)")
        lines += [f"    {described(examined.rows[i], finding.rows[i])}" for i in rows[:EXAMPLES]]
        lines += [f"    and {len(rows) - EXAMPLES} more"] if len(rows) > EXAMPLES else []
    lines += [f"  {problem}" for problem in problems]
    instead = "\nor set the check to `quarantine` under data.checks in params.yaml to leave them out." if failed else ""
    lines.append(f"Look at {kept / 'docs' / 'index.html'} and {kept / 'quarantine.csv'}; mend the rows{instead or '.'}")
    return "\n".join(lines)


def summary_line(examined: Examined) -> str:
    """How many rows stay, and how many each check took out."""
    taken = ", ".join(f"{finding.check} {len(finding.rows)}" for finding in examined.findings if finding.rows)
    left_out = len(examined.rows) - len(examined.clean)
    tail = f", {left_out} quarantined ({taken}), see quarantine.csv" if left_out else ""
    return f"{len(examined.rows)} rows read, {len(examined.clean)} clean{tail}"


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    return dict(Counter(row.split for row in rows))


def _summary(finding: Finding, rows: Sequence[Row]) -> dict[str, Any]:
    splits = Counter(rows[i].split for i in finding.rows)
    examples = [described(rows[i], reason) for i, reason in list(finding.rows.items())[:EXAMPLES]]
    return {"action": finding.action or "off", "count": len(finding.rows), "splits": dict(splits), "examples": examples}
