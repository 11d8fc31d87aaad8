"""`python -m flows.remote STAGE ...`: push what stages made to DVC's default remote, and look there for every file of it.

A program of its own, so that a flow can end it like a stage. DVC takes the list of a folder's files, on the remote or in its own index, for
the files themselves: one that went missing is never missed by `dvc push`, nor by `dvc status --cloud`.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from typing import Any

from flows.graph import find_root
from pipelines.environment import disable_telemetry
from pipelines.errors import FactoryError, ResourceError, TransientError

#: Questions to the remote at once.
THREADS = 8


def default_remote(root: Path) -> str | None:
    """The name of the project's default remote; None where it has none."""
    from dvc.repo import Repo

    with Repo(os.fspath(root)) as repo:
        found: str | None = repo.config["core"].get("remote")
    return found


def push(root: Path, stages: Sequence[str]) -> tuple[int, int]:
    """Push DVC's records of runs and the outputs of stages; how many files of these were sent, and how many were found there after it.

    What is missing or cut short on the remote in spite of what DVC believes is sent again. Raises TransientError where the remote does
    not answer or keeps less than it was sent, ResourceError where it refuses, or the cache's own copy is the damaged one.
    """
    from botocore.exceptions import BotoCoreError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_objects.errors import ObjectDBPermissionError

    with chdir(root), Repo(os.fspath(root), _wait_for_lock=True) as repo:  # DVC looks for stages from where it stands
        name = f"DVC's remote {repo.config['core']['remote']}"
        try:
            _push_runs(repo)
            sent = _push_outputs(repo, stages)
            outputs = _outputs(repo, stages)
            damaged = _damaged(repo, outputs)
            if damaged:
                _check_cache(repo, damaged)
                _forget(repo, outputs, damaged)
                sent += _push_outputs(repo, stages)
                damaged = _damaged(repo, outputs)
        except (PermissionError, ObjectDBPermissionError) as error:
            raise ResourceError(f"{name}: {error}; see to the right to write there") from error
        except (DvcException, OSError, BotoCoreError) as error:
            raise TransientError(f"{name}: {error}") from error
    if damaged:
        raise TransientError(
            f"{name}: {len(damaged)} of {len(_digests(outputs))} files are missing or cut short after they were sent, "
            f"the first with md5 {min(damaged)}"
        )
    return sent, len(_digests(outputs))


def _push_runs(repo: Any) -> None:
    """Send the records of runs that the remote lacks; DVC itself would send all of them each time."""
    from dvc.fs import generic

    here, far = repo.cache.legacy, repo.cloud.get_remote_odb(hash_name="md5-dos2unix")
    lacking = sorted(_runs(here) - _runs(far))
    if lacking:
        ours, theirs = ([odb.fs.join(odb.path, *parts) for parts in lacking] for odb in (here, far))
        generic.copy(here.fs, ours, far.fs, theirs)


def _runs(odb: Any) -> set[tuple[str, ...]]:
    folder = odb.fs.join(odb.path, "runs")
    found = odb.fs.find(folder) if odb.fs.exists(folder) else ()
    return {odb.fs.relparts(path, odb.path) for path in found if is_record(odb.fs.name(path))}


def is_record(name: str) -> bool:
    """Whether a file among DVC's records of runs is one: it bears a digest, and what a kill left of one does not."""
    return re.fullmatch("[0-9a-f]{64}", name) is not None


def _push_outputs(repo: Any, stages: Sequence[str]) -> int:
    sent: int = repo.push(targets=list(stages))
    return sent + len(repo.cloud.push(_uncached(repo, stages)).transferred)


def _outputs(repo: Any, stages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Digest of each output -> those of the files in it, where it is a folder; its own is then that of the list of its files."""
    from dvc_data.hashfile.tree import Tree

    # Outputs that DVC fetches from an object store of their own are imports, which stand elsewhere.
    cached = [
        info for odb, infos in repo.used_objs(targets=list(stages), push=True).items() if odb is None for info in infos
    ]
    return {
        info.value: tuple(entry.value for _, _, entry in Tree.load(repo.cache.local, info)) if info.isdir else ()
        for info in [*cached, *_uncached(repo, stages)]
    }


def _uncached(repo: Any, stages: Sequence[str]) -> list[Any]:
    """Outputs that dvc.yaml says are not cached (metrics, curves). DVC keeps them for its runs alone: without them another machine would
    run the stage again."""
    loaded = (repo.stage.load_one(name=name) for name in stages if not name.endswith(".dvc"))
    infos = [out.hash_info for stage in loaded for out in stage.outs if not out.use_cache and out.hash_info]
    return [info for info in infos if not info.isdir and repo.cache.local.exists(info.value)]


def _digests(outputs: Mapping[str, Sequence[str]]) -> set[str]:
    return {*outputs, *(digest for below in outputs.values() for digest in below)}


def _damaged(repo: Any, outputs: Mapping[str, Sequence[str]]) -> set[str]:
    """Digests of the files that the remote does not have, or has in another size than the cache."""
    odb, cache = repo.cloud.get_remote_odb(), repo.cache.local
    digests = sorted(_digests(outputs))

    def there(digest: str) -> bool:
        try:
            size = odb.fs.info(odb.oid_to_path(digest))["size"]
        except FileNotFoundError:
            return False
        own = Path(cache.oid_to_path(digest))
        return not own.exists() or bool(size == own.stat().st_size)  # what DVC's cache has let go of cannot be compared

    with ThreadPoolExecutor(THREADS) as threads:
        return {digest for digest, found in zip(digests, threads.map(there, digests), strict=True) if not found}


def _check_cache(repo: Any, digests: Iterable[str]) -> None:
    """Raise ResourceError where the cache is what is damaged: the remote may have the last whole copy."""
    for digest in sorted(digests):
        own = Path(repo.cache.local.oid_to_path(digest))
        whole = own.exists() and _md5_of(own) == digest.removesuffix(".dir")
        if not whole:
            raise ResourceError(
                f"{own}: DVC's cache has lost or damaged this file, and its remote has none of that size; delete it, `dvc fetch` the model, "
                "and where that finds none, build it again"
            )


def _md5_of(path: Path) -> str:
    """DVC's digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _forget(repo: Any, outputs: Mapping[str, Sequence[str]], damaged: set[str]) -> None:
    """Make DVC send these again: it takes a folder's list on the remote, or in its index, for all of the folder's files."""
    from dvc_data.hashfile.db import get_index

    odb = repo.cloud.get_remote_odb()
    get_index(odb).clear()
    lists = {digest for digest, below in outputs.items() if damaged.intersection(below)}
    for path in map(odb.oid_to_path, lists | damaged):
        if odb.fs.exists(path):
            odb.fs.remove(path)


def main(stages: Sequence[str]) -> int:
    """Push, and say what came of it."""
    disable_telemetry()
    try:
        sent, held = push(find_root(Path.cwd()), stages)
    except FactoryError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{sent} files sent, all {held} found there")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
