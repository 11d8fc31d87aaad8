"""Bytes of a fuzzer into the parsers of entry, head, manifest, lineage and names: `python fuzz_parsers.py SECONDS SEED`.

With atheris, where it is installed, coverage leads; otherwise hypothesis draws. Prints one line with what was run; a crash or
a hang ends it with another exit code.
"""

from __future__ import annotations

import contextlib
import sys
import time


def parse_anything(data: bytes) -> None:
    """Every parser on the same bytes. Whatever is not one of the package's own errors is a crash."""
    from slm_registry import names
    from slm_registry.bundles.manifest import parse_lineage, parse_manifest
    from slm_registry.errors import RegistryError
    from slm_registry.log.entries import parse_entry
    from slm_registry.log.hints import parse_head, parse_index

    text = data.decode("utf-8", "surrogateescape")
    attempts = (
        lambda: parse_entry(data, "m", 1, "entry"),
        lambda: parse_head(data, "m"),
        lambda: parse_index(data, "m"),
        lambda: parse_manifest(data, "m", "1.0.0"),
        lambda: parse_lineage(data, "lineage"),
        lambda: names.parse_ref(text),
        lambda: names.alias_name(text),
        lambda: names.safe_paths(text.split("\n")),
        lambda: names.check_key(text),
    )
    for attempt in attempts:
        with contextlib.suppress(RegistryError):
            attempt()


def seeds() -> list[bytes]:
    """What is valid, to start from."""
    from pathlib import Path

    frozen = Path(__file__).with_name("frozen")
    found = [path.read_bytes() for path in sorted(frozen.rglob("*")) if path.is_file()]
    return [*found, b"name@production", b"name@1.2.0", b"a/b.json\na/c.onnx"]


def with_atheris(seconds: int, seed: int) -> None:
    import tempfile
    from pathlib import Path

    import atheris

    with atheris.instrument_imports(include=["slm_registry"]):
        pass
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, data in enumerate(seeds()):
        (corpus / str(number)).write_bytes(data)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed or 1}",
        "-timeout=10",
        "-max_len=65536",
        "-rss_limit_mb=4096",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], parse_anything)
    # Prints its own figures, and ends the process.
    atheris.Fuzz()


def with_hypothesis(seconds: int, seed: int) -> None:
    import hypothesis
    from hypothesis import strategies as st

    valid = st.sampled_from(seeds())
    cut = st.builds(
        lambda data, at, new: data[:at] + new + data[at + len(new) :], valid, st.integers(0, 900), st.binary()
    )
    count = 0

    @hypothesis.settings(max_examples=500, deadline=None, database=None)
    @hypothesis.given(st.binary(max_size=2000) | cut)
    def run(data: bytes) -> None:
        nonlocal count
        count += 1
        parse_anything(data)

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hypothesis.seed(seed)(run)()
        seed += 1
    print(f"Done {count} runs with hypothesis")


def main(seconds: int, seed: int) -> None:
    try:
        import atheris  # noqa: F401
    except ImportError:
        with_hypothesis(seconds, seed)
    else:
        with_atheris(seconds, seed)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
