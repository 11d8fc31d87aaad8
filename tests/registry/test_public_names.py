"""The public namespace, and that importing it is light and without effect."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import slm_registry
from slm_registry import errors

from tests.registry.helpers import REPOSITORY

FORBIDDEN = ("torch", "transformers", "prefect", "dvc", "pydantic", "tqdm")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY / "registry"), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_exported_names() -> None:
    assert slm_registry.__all__ == sorted(slm_registry.__all__, key=lambda name: (not name.isupper(), name))
    assert sorted(slm_registry.__all__) == sorted([*slm_registry._HOMES, "__version__"]) == dir(slm_registry)
    for name in slm_registry.__all__:
        assert getattr(slm_registry, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        slm_registry.nothing  # noqa: B018


def test_errors_are_one_tree_with_the_documented_codes() -> None:
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.RegistryError)
    }
    assert found == {
        "RegistryError": 1,
        "UsageError": 2,
        "InputTypeError": 2,
        "NotFoundError": 3,
        "PolicyError": 8,
        "ConflictError": 4,
        "CorruptError": 5,
        "RefusedError": 6,
        "StoreError": 7,
        "UnreachableError": 7,
        "AddressError": 7,
        "AccessError": 7,
        "ReadOnlyError": 7,
        "NoSpaceError": 7,
    }
    assert set(found) <= set(slm_registry.__all__)


def test_importing_is_light() -> None:
    modules = set(json.loads(run("import slm_registry, sys, json; print(json.dumps(sorted(sys.modules)))")))
    assert "slm_registry" in modules
    assert not modules & {"numpy", "onnxruntime", "tokenizers", "boto3", "botocore", "slm_registry.client", "json.tool"}


def test_every_module_imports_without_the_factory() -> None:
    code = (
        "import sys, importlib, pkgutil, json, slm_registry\n"
        f"for name in {FORBIDDEN!r}: sys.modules[name] = None\n"
        "found = pkgutil.walk_packages(slm_registry.__path__, 'slm_registry.')\n"
        "names = [m.name for m in found if not m.name.endswith('__main__')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(json.dumps([len(names), sorted(m for m in sys.modules if m.split('.')[0] in "
        f"{(*FORBIDDEN, 'boto3', 'onnxruntime')!r} and sys.modules[m])]))"
    )
    count, loaded = json.loads(run(code))
    assert count >= 80
    assert loaded == []


def test_nothing_reads_the_clock_or_writes_at_import(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    run(f"import os; os.environ['HOME'] = {str(home)!r}; import slm_registry.client, slm_registry.runtime.loading")
    assert list(home.iterdir()) == []
