"""The documents of a finished sequence model: its card tells the task's own measures and how to call it."""

from __future__ import annotations

from pathlib import Path

from pipelines.bundle import Lineage
from pipelines.data.clean import CleanData
from pipelines.reporting.card import rows_of, write_card
from pipelines.reporting.report import render
from pipelines.reporting.sequence_tables import SIDE_NAMES, measure_table
from pipelines.sequences.evaluation import SequenceEvaluation
from pipelines.sequences.main_metric import MAIN

#: What a model of the task does, in words.
PURPOSES = {
    "text-generation": "It writes on from a prompt.",
    "text-to-text": "It answers a text with a text.",
    "token-classification": "It finds spans of words in a text.",
}


def write_sequence_documents(bundle: Path, result: SequenceEvaluation, data: CleanData, lineage: Lineage) -> None:
    """Write the card, the metrics and the lineage, with the environment, into a bundle."""
    from slm_registry.bundles.facts import pipeline_of

    metrics, task = result.metrics(), result.ground.task
    card = render(
        "sequence_card.md.j2",
        metrics=metrics,
        main=MAIN[task.type],
        table=measure_table(metrics),
        names=SIDE_NAMES,
        pipeline_tag=pipeline_of(task.type),
        purpose=PURPOSES[task.type],
        lineage=lineage,
        task=task,
        rows=rows_of(data),
        new_tokens=max([1, *(one.tokens for one in result.sides["model"].written)]),
    )
    write_card(bundle, card, metrics, lineage)
