"""Templates of work pools, created on a real server; whose every placeholder is filled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client

from flows.pools import PROJECT, SHAPES, template
from tests.flows.toy import environment


def filled(found: dict[str, Any]) -> dict[str, Any]:
    """The job that a pool's defaults make of a template."""
    from prefect.utilities.templating import apply_values

    defaults = {name: each["default"] for name, each in found["variables"]["properties"].items() if "default" in each}
    made: dict[str, Any] = apply_values(found["job_configuration"], defaults, remove_notset=True)
    return made


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_a_pool_is_created_from_it(kind: str, tmp_path: Path) -> None:
    """By the two commands of docs/operations.md."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.pools", kind], env=environment(), capture_output=True, text=True, check=True
    )
    (tmp_path / "pool.json").write_text(done.stdout)
    command = [
        "work-pool",
        "create",
        f"pool-{kind}",
        "--type",
        kind,
        "--base-job-template",
        str(tmp_path / "pool.json"),
    ]
    subprocess.run([sys.executable, "-m", "prefect", *command], env=os.environ, check=True, capture_output=True)
    with get_client(sync_client=True) as client:
        pool = client.read_work_pool(f"pool-{kind}")
    assert pool.type == kind
    assert (
        pool.base_job_template
        == json.loads(done.stdout)
        == template(kind, "slm-factory", "slm-factory", "slm-factory", "default")
    )


def test_a_container_has_the_project() -> None:
    job = filled(template("docker", "image:1", "volume", "unused", "unused"))
    assert (job["image"], job["volumes"], job["image_pull_policy"]) == (
        "image:1",
        [f"volume:{PROJECT}"],
        "IfNotPresent",
    )
    assert job["auto_remove"] is True
    assert job["privileged"] is False


def test_a_pod_has_the_project_and_its_secret_and_no_rights() -> None:
    pod = filled(template("kubernetes", "image:1", "claim", "secret", "space"))["job_manifest"]["spec"]["template"][
        "spec"
    ]
    container = pod["containers"][0]
    assert (container["image"], container["workingDir"]) == ("image:1", PROJECT)
    assert container["volumeMounts"] == [{"name": pod["volumes"][0]["name"], "mountPath": PROJECT}]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "claim"}
    assert container["envFrom"] == [{"secretRef": {"name": "secret"}}]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
