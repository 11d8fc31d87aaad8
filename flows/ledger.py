"""What builds took: a line a build, kept on this machine, with a page of it for people and a file of it for Prometheus.

Processor time is that of a stage's whole process tree. Energy is the processor's own count (RAPL) where the machine shows it: everything that
ran meanwhile is in it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from flows.receipt import FOLDER
from flows.transcript import Used

RAPL = Path("/sys/class/powercap")
#: More than any processor package draws; counters begin anew at some 262 kJ.
MOST_WATTS = 400.0


@dataclass
class Entry:
    """One build: when it began (seconds since 1970), how it ended, what its stages used, what it published."""

    model: str
    began: float
    state: str = ""
    seconds: float = 0.0
    joules: float | None = None
    stages: dict[str, Used] = field(default_factory=dict)
    version: str | None = None

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all its stages."""
        return sum(used.cpu_seconds for used in self.stages.values())


@contextmanager
def noted(root: Path, model: str, *, kept: bool) -> Iterator[Entry]:
    """An entry to fill in while a build goes on; it is written at the end, however that comes, where a stage was built or failed.

    The file for Prometheus is written either way; without `kept` neither. A build that raises ended in the state that its error names.
    """
    entry, began, counted = Entry(model, time.time()), time.monotonic(), _joules()
    try:
        yield entry
    except BaseException as error:
        entry.state = type(error).__name__
        raise
    finally:
        if kept:
            try:
                _keep(root, entry, time.monotonic() - began, counted)
            except OSError as failed:  # no build fails, or changes its error, for want of this
                logging.getLogger(__name__).warning("what this build took could not be noted: %s", failed)


def note_standing(root: Path, model: str, state: str, seconds: float) -> None:
    """A build that had nothing to do: in the file for Prometheus alone."""
    try:
        _keep(root, Entry(model, time.time() - seconds, state), seconds, {})
    except OSError as failed:
        logging.getLogger(__name__).warning("how this build ended could not be noted: %s", failed)


def _keep(root: Path, entry: Entry, seconds: float, counted: Mapping[str, tuple[float, float]]) -> None:
    entry.seconds, entry.joules = round(seconds, 2), _used_since(counted, seconds)
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if entry.stages:
        with (folder / f"{entry.model}.builds.jsonl").open("a+b") as file:
            file.seek(0)
            whole = file.read()[-1:] in (b"", b"\n")
            file.write((b"" if whole else b"\n") + json.dumps(asdict(entry)).encode() + b"\n")
    _for_prometheus(folder / f"{entry.model}.prom", entry)


def entries(root: Path, model: str) -> list[Entry]:
    """The builds of a model on this machine, the first one first; a line that a kill cut short is left out."""
    place = root / FOLDER / f"{model}.builds.jsonl"
    lines = place.read_text(encoding="utf-8").splitlines() if place.exists() else []
    found = []
    for line in lines:
        try:
            raw = json.loads(line)
        except ValueError:
            continue
        found.append(Entry(**raw | {"stages": {name: Used(**used) for name, used in raw["stages"].items()}}))
    return found


def _for_prometheus(place: Path, entry: Entry) -> None:
    """Gauges of the last build, for the text file collector of Prometheus' node exporter; whole or not at all."""
    registry = CollectorRegistry()

    def gauge(name: str, about: str, values: Mapping[tuple[str, ...], float], *labels: str) -> None:
        made = Gauge(f"slm_build_{name}", about, ("model", *labels), registry=registry)
        for key, value in values.items():
            made.labels(entry.model, *key).set(value)

    stages = entry.stages.items()
    gauge("end_timestamp_seconds", "When the last build ended, by how it did.", {(entry.state,): time.time()}, "state")
    gauge("duration_seconds", "What the last build took.", {(): entry.seconds})
    gauge("stage_duration_seconds", "What each stage that ran took.", {(n,): u.seconds for n, u in stages}, "stage")
    gauge("stage_cpu_seconds", "Processor time of each.", {(n,): u.cpu_seconds for n, u in stages}, "stage")
    gauge("stage_memory_bytes", "The most memory of each.", {(n,): u.megabytes * 1e6 for n, u in stages}, "stage")
    if entry.joules is not None:
        gauge("joules", "The processor's energy meanwhile.", {(): entry.joules})
    write_to_textfile(str(place), registry)


def _joules() -> dict[str, tuple[float, float]]:
    """Energy that each processor package has counted, and where its counter begins anew, by its place; empty where the machine does not show it."""
    found = {}
    for place in RAPL.glob("intel-rapl:[0-9]"):
        try:
            now, end = (int((place / name).read_text()) / 1e6 for name in ("energy_uj", "max_energy_range_uj"))
        except OSError:  # for root alone on many machines
            return {}
        found[str(place)] = now, end
    return found


def _used_since(before: Mapping[str, tuple[float, float]], seconds: float) -> float | None:
    """None where it is not shown, or the counter may have begun anew more than once meanwhile."""
    now = _joules()
    if not before or now.keys() != before.keys() or any(seconds * MOST_WATTS > end for _, end in now.values()):
        return None
    return round(sum((now[place][0] - value) % end for place, (value, end) in before.items()), 1)
