"""`python -m flows.pools docker|kubernetes`: the template of a work pool whose runs are containers, from Prefect's own and this project's needs.

    python -m flows.pools docker > pool.json
    prefect work-pool create factory --type docker --base-job-template pool.json

A run needs the project at /srv/slm-factory (deploy/Dockerfile), which a volume holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.environment import disable_telemetry

#: Where a container has the project.
PROJECT = "/srv/slm-factory"
#: A container is told to stop, and gets the time that a build takes to end all that it started.
STOP_SECONDS = 15


def template(kind: str, image: str, volume: str, secret: str, namespace: str) -> dict[str, Any]:
    """The base job template of a pool: its image, the project's volume, and (in Kubernetes) the secret that its environment comes from."""
    found = _prefects_own(kind)
    properties = found["variables"]["properties"]
    properties["image"]["default"] = image
    properties["image_pull_policy"]["default"] = "IfNotPresent"
    if "namespace" in properties:
        properties["namespace"]["default"] = namespace
    SHAPES[kind](found, properties, volume, secret)
    return found


def _prefects_own(kind: str) -> dict[str, Any]:
    """What Prefect ships for this kind of worker; no server and no network is asked."""
    from prefect.server.api.collections_data import views

    path = Path(next(iter(views.__path__)), "aggregate-worker-metadata.json")
    workers = json.loads(path.read_text(encoding="utf-8"))[f"prefect-{kind}"]
    own: dict[str, Any] = workers[kind]["default_base_job_configuration"]
    return own


def _docker(found: dict[str, Any], properties: dict[str, Any], volume: str, secret: str) -> None:
    properties["volumes"]["default"] = [f"{volume}:{PROJECT}"]
    properties["auto_remove"]["default"] = True
    found["job_configuration"]["container_create_kwargs"] = {
        "init": True
    }  # signals reach the build, and nothing stays as a zombie


def _kubernetes(found: dict[str, Any], properties: dict[str, Any], volume: str, secret: str) -> None:
    properties["finished_job_ttl"]["default"] = 86400  # seconds that a job's logs can be read in the cluster
    properties["pod_watch_timeout_seconds"]["default"] = 600  # an image of gigabytes may have to be pulled
    pod = found["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    pod |= {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
        "terminationGracePeriodSeconds": STOP_SECONDS,
        "volumes": [{"name": "project", "persistentVolumeClaim": {"claimName": volume}}],
    }
    pod["containers"][0] |= {
        "workingDir": PROJECT,
        "envFrom": [{"secretRef": {"name": secret}}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "project", "mountPath": PROJECT}],
    }


SHAPES: dict[str, Callable[[dict[str, Any], dict[str, Any], str, str], None]] = {
    "docker": _docker,
    "kubernetes": _kubernetes,
}


def main(argv: Sequence[str]) -> int:
    """Print a template."""
    disable_telemetry()
    parser = argparse.ArgumentParser(prog="python -m flows.pools", description="The template of a work pool.")
    parser.add_argument("kind", choices=sorted(SHAPES))
    parser.add_argument(
        "--image", default="slm-factory", help="what deploy/Dockerfile was built as (default: slm-factory)"
    )
    parser.add_argument(
        "--volume", default="slm-factory", help="volume, or claim of one, that holds the project (default: slm-factory)"
    )
    parser.add_argument(
        "--secret", default="slm-factory", help="Kubernetes' secret with the environment (default: slm-factory)"
    )
    parser.add_argument("--namespace", default="default", help="Kubernetes' namespace of the jobs (default: default)")
    given = parser.parse_args(argv)
    print(json.dumps(template(given.kind, given.image, given.volume, given.secret, given.namespace), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
