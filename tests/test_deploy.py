"""What deploy/ says, held against the project: no Docker and no cluster is here to try it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.pools import PROJECT, template
from pipelines.environment import ROOT

DEPLOY = ROOT / "deploy"


def instructions() -> list[list[str]]:
    """The Dockerfile's, words each."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def test_what_the_image_copies_is_enough_to_install(tmp_path: Path) -> None:
    """Its COPY lines alone, in a folder: every target that it makes finds what it needs, and the client is built and installed from it."""
    for name, rest in instructions():
        if name == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                place = tmp_path / (source if target == "./" else target)
                place.parent.mkdir(parents=True, exist_ok=True)
                path = ROOT / source
                shutil.copytree(
                    path, place, ignore=shutil.ignore_patterns("__pycache__")
                ) if path.is_dir() else shutil.copy(path, place)
    made = next(
        rest.partition("make ")[2].partition("&&")[0]
        for name, rest in instructions()
        if name == "RUN" and "make install" in rest
    )
    subprocess.run(["make", "--dry-run", *made.split()], cwd=tmp_path, check=True, capture_output=True)
    command = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--target",
        str(tmp_path / "out"),
        ".",
    ]
    subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "out" / "slm_registry" / "__init__.py").exists()


def test_the_image_is_told_as_much_as_the_project() -> None:
    """No telemetry from a container either, the project's own code first, nobody's root."""
    text = " ".join(rest for name, rest in instructions() if name == "ENV")
    told = dict(word.split("=", 1) for word in shlex.split(text))
    for line in (ROOT / "telemetry.env").read_text(encoding="utf-8").split():
        name, _, value = line.partition("=")
        assert told[name] == value
    assert told["PYTHONPATH"].split(":") == [PROJECT, f"{PROJECT}/registry"]
    assert [rest for name, rest in instructions() if name == "USER"] == ["factory"]
    assert [rest for name, rest in instructions() if name == "WORKDIR"][-1] == PROJECT
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    wanted = next(rest for name, rest in instructions() if name == "ARG" and rest.startswith("POOLS"))
    assert set(shlex.split(wanted.partition("=")[2])[0].split()) <= set(groups)


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))}


def test_worker_and_jobs_share_volume_secret_and_image(manifests: dict[str, Any]) -> None:
    pool = template("kubernetes", "slm-factory", "slm-factory", "slm-factory", "default")
    job = pool["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    worker = manifests["Deployment"]["spec"]["template"]["spec"]
    assert worker["volumes"] == job["volumes"]
    assert (
        worker["volumes"][0]["persistentVolumeClaim"]["claimName"]
        == manifests["PersistentVolumeClaim"]["metadata"]["name"]
    )
    ours, theirs = worker["containers"][0], job["containers"][0]
    assert ours["volumeMounts"] == theirs["volumeMounts"]
    assert ours["envFrom"] == theirs["envFrom"]
    assert ours["image"] == pool["variables"]["properties"]["image"]["default"]
    assert (
        worker["serviceAccountName"]
        == manifests["RoleBinding"]["subjects"][0]["name"]
        == manifests["ServiceAccount"]["metadata"]["name"]
    )
    assert manifests["RoleBinding"]["roleRef"]["name"] == manifests["Role"]["metadata"]["name"]


def plain(pin: str) -> str:
    """`Name.of_it==1.0` with its name as indexes write it."""
    name, _, version = pin.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name.lower())}=={version}"


def test_every_pinned_package_has_its_digests() -> None:
    """The same versions in both files, each with a digest at least, and no address of where they come from."""
    pinned = {
        line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").split() if not line.startswith("#")
    }
    text = (ROOT / "requirements.sha256").read_text(encoding="utf-8")
    digests: dict[str, list[str]] = {}
    for line in text.splitlines():
        if found := re.fullmatch(r"(\S+==\S+) \\", line):
            digests[found[1]] = []
        elif found := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})( \\)?", line):
            next(reversed(digests.values())).append(found[1])
        else:
            assert line.startswith("#"), line
    assert {plain(each) for each in digests} == {plain(each) for each in pinned}
    assert all(digests.values())
    assert "://" not in text
