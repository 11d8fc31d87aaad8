"""The command that finds out whether a store may hold a registry: certify."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from slm_registry.commands.tables import table
from slm_registry.errors import StoreError, UsageError
from slm_registry.stores.address import open_store
from slm_registry.stores.certify import certify


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = commands.add_parser("certify", parents=[common], help="probe whether a store keeps what a registry needs")
    parser.add_argument("url", help="folder or s3://bucket/prefix; what the probes write is removed again")
    parser.set_defaults(run_alone=_certify)


def _certify(options: argparse.Namespace) -> tuple[Any, str]:
    if options.offline:
        raise UsageError("certify asks the store; leave --offline out")
    report = certify(open_store(options.url))
    if report.refusals:
        raise StoreError(f"{report.url} is not fit for a registry: {'; '.join(report.refusals)}")
    rows = [(probe.name, "kept", probe.found) for probe in report.probes]
    notes = [f"note: {note}" for note in report.notes]
    verdict = f"{report.url} keeps what a registry needs"
    return {**asdict(report), "fit": True}, "\n".join([table(("probe", "", "found"), rows), *notes, verdict])
