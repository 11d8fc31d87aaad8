"""The wheel, built and installed as a downstream team gets it: light, and whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.registry.helpers import REPOSITORY, make_bundle

FACTORY = ("torch", "transformers", "prefect", "dvc", "onnx", "pydantic")

# Runs in the fresh environment. What it prints last is JSON.
USE = """
import importlib.util, json, sys
from slm_registry import Registry

url, bundle, cache, *factory = sys.argv[1:]
registry = Registry(url, cache=cache)
done = registry.publish(bundle, "support", lineage={"git_commit": "0" * 40}, alias="candidate")
found = registry.load("support@candidate").predict(["where is my parcel", "money back"])
print(json.dumps({
    "version": done.version,
    "labels": [prediction.label for prediction in found],
    "importable": [name for name in factory if importlib.util.find_spec(name)],
    "imported": [name for name in ("tqdm", "huggingface_hub", "onnx") if name in sys.modules],
    "home": sys.modules["slm_registry"].__file__,
}))
"""

COLD = """
import sys
from slm_registry import Registry
print(Registry(sys.argv[1], cache=sys.argv[2]).load("support@candidate").predict(["where is my parcel"])[0].label)
"""


def run(*command: str, **environment: str) -> str:
    """Run a command in a clean environment and return its standard output."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "SSL_CERT_FILE") or key[:4] == "PIP_"}
    done = subprocess.run(command, capture_output=True, text=True, env={**kept, **environment}, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Installed:
    """The wheel, in a fresh virtual environment with its dependencies and nothing else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        pip = (sys.executable, "-m", "pip")
        home = {"HOME": os.environ.get("HOME", str(root))}
        run(*pip, "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", str(root), str(REPOSITORY), **home)
        (self.wheel,) = root.glob("slm_registry-*.whl")
        # The versions that the rest of the tests run with: what is new on the index is not this test's matter.
        pins = root / "constraints.txt"
        pins.write_text("".join(f"{found.name}=={found.version}\n" for found in metadata.distributions() if found.name))
        venv.create(root / "venv", with_pip=False)
        self.python = str(root / "venv" / "bin" / "python")
        run(*pip, "--python", self.python, "install", "-q", "--no-compile", "-c", str(pins), str(self.wheel), **home)

    def use(self, url: str, **environment: str) -> dict[str, Any]:
        bundle = make_bundle(self.root / "bundle")
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        cache = self.root / f"cache-{'s3' if url.startswith('s3') else 'folder'}"
        printed = run(self.python, "-c", USE, url, str(bundle), str(cache), *FACTORY, HOME=str(home), **environment)
        # No telemetry: onnxruntime would have left a device id here.
        assert [path.name for path in home.rglob("*")] == []
        answer: dict[str, Any] = json.loads(printed)
        self.show_cold_time(url, cache, environment)
        return answer

    def show_cold_time(self, url: str, cache: Path, environment: dict[str, str]) -> None:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            assert run(self.python, "-c", COLD, url, str(cache), HOME=str(self.root), **environment) == "delivery\n"
            times.append(time.perf_counter() - start)
        kind = "S3 over HTTP" if url.startswith("s3") else "folder"
        print(f"\ncold process to first prediction, {kind}: {min(times):.2f} s (best of 3)")
        # The promise is one second; a loaded machine is given its time.
        assert min(times) < 10


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_package_alone(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"slm_registry"}
    assert "slm_registry/py.typed" in names
    sources = {
        path.relative_to(REPOSITORY / "registry").as_posix()
        for path in (REPOSITORY / "registry" / "slm_registry").rglob("*.py")
    }
    assert sources == {name for name in names if name.endswith(".py")}


def check(installed: Installed, answer: dict[str, Any]) -> None:
    assert answer["version"] == "1.0.0"
    assert answer["labels"] == ["delivery", "refund"]
    assert answer["importable"] == []
    assert answer["imported"] == []
    assert answer["home"].startswith(str(installed.root))


def test_folder(installed: Installed, tmp_path: Path) -> None:
    check(installed, installed.use(str(tmp_path / "store")))


def test_s3_over_http(installed: Installed, s3_url: str) -> None:
    keys = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    check(installed, installed.use(s3_url, **keys))


def test_the_console_script(installed: Installed, tmp_path: Path) -> None:
    script = str(installed.root / "venv" / "bin" / "slm-registry")
    bundle = str(make_bundle(tmp_path / "bundle"))
    place = {"SLM_REGISTRY_URL": str(tmp_path / "store"), "HOME": str(tmp_path)}
    assert run(script, "publish", bundle, "support", "--alias", "candidate", **place).startswith("published")
    assert json.loads(run(script, "predict", "support", "hello", "--json", **place))[0]["label"] == "other"
    assert run(script, "--version").startswith("slm-registry 0.")
