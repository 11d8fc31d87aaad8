"""Where pretrained models come from: an installed package, a hub revision, a version in a registry, or a folder. Digests are always checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipelines.bundle import require_files, sha256_of
from pipelines.errors import ModelError, TransientError

WEIGHTS = "model.safetensors"
#: The scheme of a version in a registry.
REGISTRY = "registry"

#: What a model needs; of code a hub gives what the recipe trusts by name, and pickles never.
HUB_FILES = ("config.json", WEIGHTS, "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model")


def fetch_pretrained(source: str, sha256: str, code: Collection[str] = ()) -> Path:
    """The local folder of a pretrained model, its weights checked against their digest; `code` names files of its own code.

    Raises ModelError where the source does not exist or has other weights, TransientError where a hub does not answer.
    """
    folder = located(source, code)
    found = sha256_of(folder / WEIGHTS)
    if found != sha256:
        raise ModelError(
            f"{folder / WEIGHTS}: sha256 is {found}, the recipe says {sha256}; get the right file, or correct the recipe's sha256"
        )
    return folder


def located(source: str, code: Collection[str] = ()) -> Path:
    """The local folder of a pretrained model, of whatever digest; raises as `fetch_pretrained`."""
    scheme, _, rest = source.partition(":")
    if scheme == "package" and rest:
        folder = _package_folder(source, rest)
    elif scheme == "hub" and rest:
        folder = _hub_folder(source, rest, code)
    elif scheme == REGISTRY and rest:
        folder = _registry_folder(source)
    else:
        folder = Path(source)
    require_files(folder, "config.json", WEIGHTS)
    return folder


def is_folder(source: str) -> bool:
    """Whether a source is a local folder, and not a package's, a hub's or a registry's."""
    return not source.startswith(("package:", "hub:", f"{REGISTRY}:"))


@dataclass(frozen=True)
class Registered:
    """A version of a model in a registry, as a source names it: `registry:URL#NAME@VERSION`."""

    url: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{REGISTRY}:{self.url}#{self.name}@{self.version}"


def registered(source: str) -> Registered | None:
    """What a registry's source names; None for a source of another kind. Raises ModelError where it names no version."""
    scheme, _, rest = source.partition(":")
    if scheme != REGISTRY:
        return None
    url, _, ref = rest.rpartition("#")
    name, _, version = ref.partition("@")
    if not (url and name and version[:1].isdigit()):
        raise ModelError(
            f"{source}: a registry's source names a version, registry:URL#NAME@VERSION; aliases move, `python -m flows follow` follows one"
        )
    return Registered(url, name, version)


def _package_folder(source: str, rest: str) -> Path:
    package, _, inner = rest.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{source}: no installed package {package!r}; run `make install`")
    return Path(spec.submodule_search_locations[0], inner)


def _registry_folder(source: str) -> Path:
    from slm_registry import Registry
    from slm_registry.errors import RegistryError, UnreachableError

    found = registered(source)
    assert found is not None
    try:
        return Registry(found.url).pull(f"{found.name}@{found.version}")
    except UnreachableError as error:
        raise TransientError(f"{source}: {error}") from error
    except RegistryError as error:
        raise ModelError(f"{source}: {type(error).__name__}: {error}") from error


def _hub_folder(source: str, rest: str, code: Collection[str]) -> Path:
    repo, at, revision = rest.partition("@")
    if not at or not revision:
        raise ModelError(f"{source}: a hub source needs a pinned revision: hub:ORG/NAME@REVISION")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=[*HUB_FILES, *code]))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(
            f"{source}: the hub has no such repository or revision (or it is private: set HF_TOKEN)"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TransientError(f"{source}: the hub did not answer: {str(error).splitlines()[0]}") from error
