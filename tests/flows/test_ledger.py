"""What builds took: noted once a build, whatever ends it; a page, a picture and Prometheus' file of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flows import ledger
from flows.costs import draw, rows_of
from flows.ledger import Entry, entries, noted
from flows.receipt import FOLDER
from flows.transcript import Transcript, Used
from tests.flows.toy import Toy

USED = Used(60.0, 90.0, 512.0)


def gauges(place: Path) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(place.read_text(encoding="utf-8"))
    return {
        (sample.name, *(value for key, value in sorted(sample.labels.items()) if key != "model")): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.usefixtures("api")
def test_builds_are_noted_and_shown(built: Toy) -> None:
    built.change("alpha", "gate", "max_bytes", 4)
    assert built.flows("build", "alpha", "--publish", "store")[0] == 0
    assert built.flows("build", "alpha", "--publish", "store")[0] == 0
    (entry,) = entries(built.folder, "alpha")
    assert (entry.state, entry.version, list(entry.stages)) == ("Published", "1.0.0", ["gate@alpha"])
    used = entry.stages["gate@alpha"]
    assert entry.seconds >= used.seconds > 0 and used.cpu_seconds > 0.05 and 20 < used.megabytes < 2000
    found = gauges(built.folder / FOLDER / "alpha.prom")
    assert ("slm_build_end_timestamp_seconds", "Up to date") in found
    built.change("alpha", "gate", "max_bytes", 5)
    built.behave("gate", "fail GateError: alpha: too much")
    assert built.flows("build", "alpha")[0] == 5
    assert ("slm_build_end_timestamp_seconds", "GateFailed") in gauges(built.folder / FOLDER / "alpha.prom")
    failed = entries(built.folder, "alpha")[-1]
    assert (failed.state, failed.version) == ("GateFailed", None) and failed.stages["gate@alpha"].cpu_seconds > 0.05
    code, output = built.flows("costs", "alpha", "--price", "0.05", "--picture", "costs.svg")
    assert code == 0 and output.count("\n") == 3 and "Published\t1.0.0\t1\t" in output
    assert (built.folder / "costs.svg").read_text().count("<svg") == 1
    code, output = built.flows("costs", "beta")
    assert code == 1 and "beta: no build on this machine has run a stage yet" in output


def test_a_stage_says_what_it_took() -> None:
    transcript = Transcript("gate")
    transcript.read(str(USED))
    assert transcript.used == USED


def test_what_a_stage_took_hides_no_error() -> None:
    transcript = Transcript("gate")
    transcript.read("ERROR: unexpected error - [Errno 28] No space left on device")
    transcript.read(str(USED))
    assert "No space left on device" in transcript.error(255).message


def test_a_build_that_raises_ends_in_its_errors_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), noted(tmp_path, "m", kept=True) as entry:
        entry.stages["teach@m"] = USED
        raise KeyboardInterrupt
    (found,) = entries(tmp_path, "m")
    assert (found.state, found.stages, found.version) == ("KeyboardInterrupt", {"teach@m": USED}, None)
    sample = gauges(tmp_path / FOLDER / "m.prom")
    assert sample["slm_build_stage_cpu_seconds", "teach@m"] == 90
    assert sample["slm_build_stage_memory_bytes", "teach@m"] == 512e6


def test_only_a_plan_leaves_nothing(tmp_path: Path) -> None:
    with noted(tmp_path, "m", kept=False):
        pass
    assert not any(tmp_path.iterdir())


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    for _ in range(2):
        with noted(tmp_path, "m", kept=True) as entry:
            entry.stages["teach@m"] = USED
    place = tmp_path / FOLDER / "m.builds.jsonl"
    place.write_text(place.read_text()[:-30])
    assert len(entries(tmp_path, "m")) == 1
    with noted(tmp_path, "m", kept=True) as entry:
        entry.stages["teach@m"] = USED
    assert len(entries(tmp_path, "m")) == 2, "the next one is on a line of its own"


def test_energy_is_the_processors_own_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "powercap" / "intel-rapl:0"
    package.mkdir(parents=True)
    monkeypatch.setattr(ledger, "RAPL", tmp_path / "powercap")
    (package / "energy_uj").write_text("1000000\n")
    (package / "max_energy_range_uj").write_text("8000000000\n")
    with noted(tmp_path, "m", kept=True) as entry:
        entry.stages["teach@m"] = USED
        (package / "energy_uj").write_text("7201000000\n")
    with noted(tmp_path, "m", kept=True) as entry:
        entry.stages["teach@m"] = USED
        (package / "energy_uj").write_text("0\n")  # the counter began anew
    first, second = entries(tmp_path, "m")
    assert (first.joules, second.joules) == (7200.0, 799.0)
    monkeypatch.setattr(ledger, "MOST_WATTS", 1e15)
    with noted(tmp_path, "m", kept=True) as entry:
        entry.stages["teach@m"] = USED
    third = entries(tmp_path, "m")[2]
    assert third.joules is None, "it may have begun anew any number of times"
    head, one, _, three = rows_of([first, second, third], 10.0, None)
    assert (head[-1], one[-1], three[-1]) == ("Wh", "2.00", "0.25 (reckoned)")


def test_where_it_cannot_be_noted_the_build_ends_as_it_did(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".dvc").touch()
    with pytest.raises(KeyError), noted(tmp_path, "m", kept=True):
        raise KeyError
    with noted(tmp_path, "m", kept=True):
        pass
    assert caplog.text.count("could not be noted") == 2


def test_cost_and_energy_where_nothing_was_measured(tmp_path: Path) -> None:
    entry = Entry("m", 0.0, "Published", 120.0, None, {"teach@m": USED, "label@m": Used(1.0, 3510.0, 900.0)}, "1.0.0")
    head, row = rows_of([entry], 7.2, 0.5)
    assert head[-2:] == ["Wh", "cost"]
    assert row == ["1970-01-01 00:00", "Published", "1.0.0", "2", "2.0", "60.0", "900", "7.20 (reckoned)", "0.5000"]
    assert rows_of([entry], None, None)[0][-1] == "most memory, MB"
    draw([entry, entry], tmp_path / "costs.png", None, None)
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")


def panels_of(picture: Path) -> list[str]:
    """What stands beside the panels of a drawing, from the top; each axis says it in its own words."""
    return [what for what in ("processor minutes", "Wh", "cost") if f"<!-- {what} -->" in picture.read_text()]


@pytest.mark.parametrize(
    ("watts", "price", "panels"),
    [
        (None, None, ["processor minutes"]),
        (8.0, None, ["processor minutes", "Wh"]),
        (8.0, 0.04, ["processor minutes", "Wh", "cost"]),
    ],
)
def test_energy_and_cost_are_drawn_where_they_can_be_had(
    tmp_path: Path, watts: float | None, price: float | None, panels: list[str]
) -> None:
    entry = Entry("m", 0.0, "Published", 120.0, None, {"teach@m": USED}, "1.0.0")
    draw([entry, entry], tmp_path / "costs.svg", watts, price)
    assert panels_of(tmp_path / "costs.svg") == panels
    draw([replace(entry, joules=36.0)], tmp_path / "costs.svg", None, None)
    assert panels_of(tmp_path / "costs.svg") == ["processor minutes", "Wh"]
