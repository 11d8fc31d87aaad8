"""`python -m flows.repro STAGE`: one stage by DVC, as `dvc repro --single-item` does it; what another machine built and pushed is brought first.

`dvc repro --pull` would copy the remote's records of all runs for every stage. Here that of this stage alone is asked for, by its key.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from flows.graph import find_root
from flows.remote import default_remote, is_record
from flows.transcript import Used
from pipelines.environment import disable_telemetry, importing


def bring(root: Path, name: str) -> int:
    """Bring the outputs of a stage, where dvc.lock names them for its inputs or DVC's default remote knows a run with these; how many files came.

    Raises what DVC and the remote's library do where the remote does not answer, or an input is missing.
    """
    from dvc.repo import Repo, lock_repo
    from dvc.stage.cache import _can_hash
    from dvc.stage.serialize import to_single_stage_lockfile

    with Repo(os.fspath(root), _wait_for_lock=True) as repo:
        with lock_repo(repo):
            stage = repo.stage.load_one(name=name)
            if not _can_hash(stage):
                return 0
            if stage.changed_stage() or stage.changed_deps() or not all(out.hash_info for out in stage.outs):
                stage.save_deps()
                record = _known_run(repo, stage)
            else:
                record = to_single_stage_lockfile(stage)
        if not record:
            return 0
        made = repo.stage_cache._create_stage(record, wdir=stage.wdir)  # all of its outputs are cached ones
        # without the lock: others go on while this machine loads
        return sum(len(repo.cloud.pull(files).transferred) for files in made.get_used_objs().values())


def _known_run(repo: Any, stage: Any) -> Any:
    """DVC's record of a run with this command, these inputs and values: this machine's, or else the remote's."""
    from dvc.fs import generic
    from dvc.stage.cache import _get_stage_hash

    key = _get_stage_hash(stage)
    here, far = repo.cache.legacy, repo.cloud.get_remote_odb(hash_name="md5-dos2unix")
    ours, theirs = (odb.fs.join(odb.path, "runs", key[:2], key) for odb in (here, far))
    if not _records(here, ours):
        found = _records(far, theirs)
        generic.copy(far.fs, found, here.fs, [here.fs.join(ours, far.fs.name(path)) for path in found])
    record = repo.stage_cache._load(stage) if _records(here, ours) else None
    if record is None:
        _remove_empty(Path(ours))  # DVC removes a record that it cannot read, and takes the empty folder for one
    return record


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _records(odb: Any, folder: str) -> list[str]:
    found = odb.fs.find(folder) if odb.fs.exists(folder) else ()
    return [path for path in found if is_record(odb.fs.name(path))]


def main(name: str) -> int:
    """Bring what there is, then let DVC do what is left; its exit code. Where nothing can be brought the stage is built here."""
    began = time.monotonic()
    disable_telemetry()
    with importing():
        import dvc.commands.repro
        import dvc.repo
        from dvc.cli import main as dvc

    root = find_root(Path.cwd())
    if default_remote(root) and not name.endswith(".dvc"):
        try:
            if came := bring(root, name):
                print(f"{came} files came from DVC's remote", flush=True)
        except Exception as error:  # whatever keeps it from being brought, DVC builds it or says what is wrong
            print(
                f"nothing comes from DVC's remote: {type(error).__name__}: {' '.join(str(error).split())}", flush=True
            )
    code: int = dvc(["--wait-for-lock", "repro", "--single-item", name])
    print(_used(time.monotonic() - began), flush=True)
    return code


def _used(seconds: float) -> Used:
    """What this process and all that it started and waited for took."""
    ours, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of the number that stands for memory
    cpu = sum(one.ru_utime + one.ru_stime for one in (ours, theirs))
    return Used(seconds, cpu, max(ours.ru_maxrss, theirs.ru_maxrss) * unit / 1e6)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
