"""Stores as past releases wrote them, byte for byte (frozen/): today's reader reads each, today's writer goes on in it.

The bytes are never changed. A release with a new format adds a folder of its own beside them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from slm_registry import Registry

from tests.registry.machine import make_contents

FROZEN = Path(__file__).with_name("frozen")
# The digest of each log entry, and of each version's manifest.
ENTRIES = {
    "format-1": [
        "sha256:4efac2431a571083ea7fc9ef3538293c697dd29c7b9294f01bf508dd0cc1e851",
        "sha256:851fea4de8d3a1a55cff9309e612ed7f5ae638e6c91a42e04abe77b27a55a4a5",
        "sha256:47c25e36dd305b467cf3f40df6d8061877970317b0894ead5e51c5a2b7d5f3e1",
        "sha256:9c9da99c166322d391a3a28a674006773b5b4c001fb72ec1414044472ed309c6",
        "sha256:3e2aaa39ff7ef07b36e80c625c3604bd5f5c84da06b737f10b61140f47045d27",
    ],
    # Logs of format 2, and manifests whose chunks are told by prefixes.
    "format-2": [
        "sha256:72726397dbd7f66503c5f05b2fa0c5422a6eacffe872d2db9d0899c594c356aa",
        "sha256:aa85776073c4763205dd260cc0d965e38af395dc1a6139fd5f8534e6f2d6f3c8",
        "sha256:af45784fb568a45cb9cf6135a3d1651afbbab4a7a008223e54bf72782bc571b2",
        "sha256:d5bc7af5a209b7b69d65a806cb681165e46c2ebf239cfae34bb8a2e26a014b0d",
        "sha256:ee780a5fe0bede9bd2c43c38154deddf074085dceff9dc0da270d8f667933f04",
    ],
}
MANIFESTS = {
    "format-1": {
        "1.0.0": "sha256:98c0b98ab092aeec4814ae9e48031f5b96426f09015e837932db6ae103d4e633",
        "1.1.0": "sha256:268f87284ea222a4ebbbda22d0cf41db840aedadef0b19d2d8bc26a4d3e21cd2",
    },
    "format-2": {
        "1.0.0": "sha256:a52271c2f1ab20e62803d70450b26ca89c204da8cc2d58d1433e0c8d6ab40ace",
        "1.1.0": "sha256:2786472f805fc5ce3d268104cc56c77739dd816b473bd2b8a2cb381844741589",
    },
}


def test_every_frozen_format_is_tested() -> None:
    assert sorted(path.name for path in FROZEN.iterdir() if path.is_dir()) == sorted(ENTRIES)


@pytest.fixture(params=sorted(ENTRIES))
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Registry]:
    shutil.copytree(FROZEN / request.param, tmp_path / "store")
    return request.param, Registry(tmp_path / "store", cache=tmp_path / "cache", actor="bob")


@pytest.mark.parametrize("hint", [True, False])
def test_it_is_read(frozen: tuple[str, Registry], tmp_path: Path, hint: bool) -> None:
    name, registry = frozen
    if not hint:
        (tmp_path / "store" / "models" / "frozen" / "head.json").unlink()
    entries = registry.log("frozen")
    assert [entry.digest for entry in entries] == ENTRIES[name]
    assert [entry.op for entry in entries] == ["publish", "alias", "publish", "alias", "alias"]
    assert (entries[0].reason, entries[4].details["expected"]) == ("first édition", "1.0.0")
    rows = {row.version: (row.digest, row.aliases, row.actor) for row in registry.list("frozen")}
    assert rows == {
        "1.1.0": (MANIFESTS[name]["1.1.0"], ("production",), "alice"),
        "1.0.0": (MANIFESTS[name]["1.0.0"], ("candidate",), "alice"),
    }
    assert registry.show("frozen@candidate").lineage == {"git_commit": "0" * 40, "metrics": {"accuracy": 0.92}}
    pulled = registry.pull("frozen")
    assert (pulled / "README.md").read_text() == "# Frozen, second edition\n"
    assert (pulled / "weights.safetensors").read_bytes() == bytes(range(250))


def test_a_writer_goes_on_in_it(frozen: tuple[str, Registry], tmp_path: Path) -> None:
    name, registry = frozen
    bundle = make_contents(tmp_path / "contents")[0]
    assert registry.publish(bundle, "frozen", lineage={}, alias="candidate").version == "1.1.1"
    entries = registry.log("frozen")
    assert [entry.digest for entry in entries[:5]] == ENTRIES[name]
    assert registry.resolve("frozen@candidate").version == "1.1.1"
    assert registry.resolve("frozen@production").digest == MANIFESTS[name]["1.1.0"]
