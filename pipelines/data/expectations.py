"""The verdict by Great Expectations, and its Data Docs: one page for the rows as read, one for the rows that go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from pipelines.config import Checks, TextData
from pipelines.data.examining import Examined
from pipelines.data.offline import make_offline
from pipelines.data.rows import SPLITS, UNLABELLED, Row, described, shortened
from pipelines.errors import DataError

OK = "ok"
#: Unexpected rows that a page lists.
LISTED = 20


@dataclass(frozen=True)
class Verdict:
    """How one expectation of one page came out. `check` is empty where it is no check of the recipe."""

    page: str
    check: str
    expectation: str
    success: bool
    unexpected: int


@dataclass(frozen=True)
class _Page:
    name: str
    frame: Any
    expectations: list[Any]


def audit(examined: Examined, data: TextData, docs: Path) -> list[Verdict]:
    """Assert every check and the shape of what is left, and write Data Docs that open without a network."""
    labelled = [i for i, row in enumerate(examined.rows) if row.split != UNLABELLED]
    unlabelled = [i for i, row in enumerate(examined.rows) if row.split == UNLABELLED]
    pages = [_page_as_read("rows as read", examined, labelled, quarantines=False)]
    if unlabelled:
        pages.append(_page_as_read("unlabelled as read", examined, unlabelled, quarantines=True))
    clean = examined.clean
    if any(row.split != UNLABELLED for row in clean):
        pages.append(_page_clean("clean rows", [row for row in clean if row.split != UNLABELLED], data))
    verdicts = _run(pages, docs)
    make_offline(docs, {page.name: all(v.success for v in verdicts if v.page == page.name) for page in pages})
    return verdicts


def _page_as_read(name: str, examined: Examined, numbers: Sequence[int], quarantines: bool) -> _Page:
    """All rows, and a column a check that holds "ok" or the reason why not."""
    import pandas as pd
    from great_expectations import expectations as gxe

    rows = [examined.rows[i] for i in numbers]
    columns: dict[str, list[Any]] = {
        field: [getattr(row, field) for row in rows] for field in ("split", "file", "line")
    }
    columns["text"] = [shortened(row.text) for row in rows]
    columns["label"] = [shortened(row.label) for row in rows]
    active = [finding for finding in examined.findings if finding.action is not None]
    for finding in active:
        columns[finding.check] = [_cell(examined.rows[i], finding.rows.get(i)) for i in numbers]
    expected = [
        gxe.ExpectTableColumnsToMatchSet(column_set=list(columns)),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
    ]
    for finding in active:
        action = "quarantine" if quarantines else finding.action
        about = f"{finding.check}: every row is {OK}; the recipe says {action} for any other"
        column, meta = finding.check, {"check": finding.check}
        expected.append(gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[OK], description=about, meta=meta))
    return _Page(name, pd.DataFrame(columns), expected)


def _cell(row: Row, reason: str | None) -> str:
    """What a check's column holds for a row; escaped, because the pages show values as they are."""
    return OK if reason is None else escape(described(row, reason), quote=False)


def _page_clean(name: str, rows: Sequence[Row], data: TextData) -> _Page:
    """The contract of the clean set, in built-in expectations alone."""
    import pandas as pd
    from great_expectations import expectations as gxe

    fields = ("split", "text") if data.second_column is None else ("split", "text", "label")
    frame = pd.DataFrame({field: [getattr(row, field) for row in rows] for field in fields})
    expected = [
        gxe.ExpectTableColumnsToMatchSet(column_set=list(frame.columns)),
        gxe.ExpectColumnDistinctValuesToEqualSet(column="split", value_set=list(SPLITS)),
        gxe.ExpectColumnValuesToNotBeNull(column="text"),
        gxe.ExpectColumnValueLengthsToBeBetween(column="text", min_value=1, max_value=data.checks.long_text.max_chars),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=list(frame.columns)),
    ]
    if "label" in frame:
        expected.append(gxe.ExpectColumnValuesToNotBeNull(column="label"))
    if isinstance(data.checks, Checks):
        labels = sorted({row.label or "" for row in rows if row.split == "train"})
        allowed = set(labels if data.checks.label_set.allowed is None else data.checks.label_set.allowed)
        known = [label for label in labels if label in allowed]
        expected.append(gxe.ExpectColumnValuesToBeInSet(column="label", value_set=known))
        expected.append(gxe.ExpectColumnUniqueValueCountToBeBetween(column="label", min_value=2))
    return _Page(name, frame, expected)


def _run(pages: Sequence[_Page], docs: Path) -> list[Verdict]:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    # Its own site would be built into a temporary folder that nobody removes.
    for site in list(context.variables.data_docs_sites or {}):
        context.delete_data_docs_site(site)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
    site = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store}
    context.add_data_docs_site("docs", {**site, "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}})
    verdicts = [verdict for page in pages for verdict in _run_page(context, page)]
    context.build_data_docs()
    return verdicts


def _run_page(context: Any, page: _Page) -> Iterator[Verdict]:
    import great_expectations as gx

    asset = context.data_sources.add_pandas(page.name).add_dataframe_asset("frame")
    batch = asset.add_batch_definition_whole_dataframe("whole")
    suite = context.suites.add(gx.ExpectationSuite(name=page.name))
    for expectation in page.expectations:
        suite.add_expectation(expectation)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=page.name, data=batch, suite=suite))
    shown = {"result_format": "SUMMARY", "partial_unexpected_count": LISTED}
    checkpoint = gx.Checkpoint(name=page.name, validation_definitions=[definition], result_format=shown)
    answer = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": page.frame})
    for result in next(iter(answer.run_results.values())).results:
        config = result.expectation_config
        if result.exception_info.get("raised_exception"):
            raise DataError(
                f"{page.name}: {config.type} could not be evaluated: {result.exception_info['exception_message']}"
            )
        count = int(result.result.get("unexpected_count", 0))
        yield Verdict(page.name, (config.meta or {}).get("check", ""), config.type, bool(result.success), count)
