"""The bill of materials: valid by CycloneDX's own schema whatever the lineage, the same each time, and true."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from slm_registry import BundleFile, Details
from slm_registry.trust.sbom import bill_of_materials

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)
HEX = "ab" * 32
LINEAGE: dict[str, Any] = {
    "git": {"commit": "0" * 40, "dirty": False},
    "dvc_lock_sha256": HEX,
    "recipe": {"task": {"type": "text-classification"}, "note": "x" * 3000},
    "data_sha256": HEX,
    "teacher": {"source": "sentence-transformers/all-MiniLM-L6-v2", "sha256": HEX},
    "bundle": {"task": {"type": "text-classification", "seed": 7}},
    "metrics": {"test": {"accuracy": 0.927, "rows": 3080}, "passed": True, "name": "x"},
    "environment": {"python": "3.11.2", "machine": "x86_64", "torch": "2.13.0+cpu"},
}


def details(lineage: dict[str, Any], **changes: Any) -> Details:
    files = (BundleFile("config.json", 2, f"sha256:{HEX}"), BundleFile("onnx/model.onnx", 9, f"sha256:{HEX}"))
    at = "2026-01-01T00:00:00+00:00"
    fields = {"actor": "alice", "at": at, "reason": "", "files": files, "lineage": lineage, **changes}
    return Details("m", "1.0.0", "sha256:" + "cd" * 32, ("production",), 11, status="", facts={}, **fields)


def check(value: dict[str, Any]) -> None:
    error = VALIDATOR.validate_str(json.dumps(value))
    assert error is None, str(error)[:500]


def test_the_validator_can_fail() -> None:
    value = bill_of_materials(details(LINEAGE))
    value["metadata"]["component"]["type"] = "model"
    assert VALIDATOR.validate_str(json.dumps(value)) is not None


def test_what_it_says() -> None:
    value = bill_of_materials(details(LINEAGE))
    check(value)
    assert value == bill_of_materials(details(LINEAGE))
    model = value["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "m", "1.0.0")
    assert model["modelCard"]["modelParameters"] == {
        "task": "text-classification",
        "datasets": [{"ref": "training-data"}],
    }
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "test.accuracy", "value": "0.927"},
        {"type": "test.rows", "value": "3080"},
    ]
    (teacher,) = model["pedigree"]["ancestors"]
    assert (teacher["name"], teacher["hashes"]) == (LINEAGE["teacher"]["source"], [{"alg": "SHA-256", "content": HEX}])
    assert model["pedigree"]["commits"] == [{"uid": "0" * 40}]
    properties = {item["name"]: item["value"] for item in model["properties"]}
    assert properties["slm-registry:manifest"] == "sha256:" + "cd" * 32
    # What is long is told by its digest.
    assert properties["slm-registry:lineage:recipe"].startswith("sha256:")
    assert [item["name"] for item in value["components"]] == ["config.json", "onnx/model.onnx", "training data"]
    assert (value["metadata"]["timestamp"], value["metadata"]["authors"]) == (
        "2026-01-01T00:00:00+00:00",
        [{"name": "alice"}],
    )
    made_with = {item["name"]: item for item in value["formulation"][0]["components"]}
    assert made_with["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert made_with["python"]["type"] == "platform"


def test_another_version_is_another_document() -> None:
    first = bill_of_materials(details({}))
    check(first)
    assert (
        first["serialNumber"] != bill_of_materials(Details(**{**fields_of(details({})), "digest": "x"}))["serialNumber"]
    )


def fields_of(found: Details) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Details.__slots__}


@pytest.mark.parametrize("at", ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00"])
def test_a_time_that_is_none_is_left_out(at: str) -> None:
    value = bill_of_materials(details({}, at=at, actor=""))
    check(value)
    assert value["metadata"].keys() == {"tools", "component"}


WORDS = st.sampled_from(
    ["git", "commit", "teacher", "source", "sha256", "data_sha256", "task", "type", "metrics", "environment", HEX]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(WORDS | st.text(max_size=4), JSON, max_size=6))
def test_any_lineage_gives_a_valid_document(lineage: dict[str, Any]) -> None:
    check(bill_of_materials(details(lineage)))
