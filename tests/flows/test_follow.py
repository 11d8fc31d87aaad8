"""An alias of a teacher that moves: the recipe follows it, in one commit, whatever was killed before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from slm_registry import Registry

from flows import follow as following
from flows.errors import FlowError, HistoryError
from flows.follow import Followed, follow
from flows.receipt import FOLDER
from pipelines.alone import alone
from pipelines.bundle import sha256_of
from pipelines.errors import ModelError, RecipeError
from pipelines.sources import Registered, fetch_pretrained, registered
from tests.flows.test_build import Inside
from tests.flows.toy import Toy, run
from tests.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("api")


def publish(store: Path, folder: Path, seed: int) -> str:
    """A teacher with other weights each time; its version, at which `production` points."""
    place = tiny_model(folder / str(seed), seed=seed)
    (place / "lineage.json").write_text(json.dumps({}))
    registry = Registry(store)
    done = registry.publish(place, "teacher", lineage={})
    registry.alias("teacher", "production", done.version)
    return str(done.version)


def set_teacher(toy: Toy, **values: str) -> None:
    path = toy.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["models"]["alpha"]["teach"] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "teacher"], toy.folder)


@pytest.fixture
def taught(toy: Toy, inside: Inside, tmp_path: Path) -> tuple[Toy, Path]:
    """A recipe whose teacher is the first version."""
    inside(toy)
    store = tmp_path / "teachers"
    version = publish(store, tmp_path / "bodies", 0)
    weights = sha256_of(Registry(store).pull(f"teacher@{version}") / "model.safetensors")
    set_teacher(toy, source=f"registry:{store}#teacher@{version}", sha256=weights)
    return toy, store


def teach(toy: Toy) -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load((toy.folder / "params.yaml").read_text())["models"]["alpha"]["teach"]
    return found


def commits(toy: Toy) -> list[str]:
    return run(["git", "log", "--format=%s"], toy.folder).splitlines()


def followed(**asked: str) -> Followed:
    state = follow("alpha", return_state=True, **asked)
    found = state.result(raise_on_failure=False)
    assert isinstance(found, Followed), state.message
    assert state.name == ("Followed" if found.moved else "Up to date")
    return found


def test_nothing_moved_nothing_written(taught: tuple[Toy, Path]) -> None:
    toy, _ = taught
    before = (toy.folder / "params.yaml").read_bytes()
    assert followed().moved is False
    assert (toy.folder / "params.yaml").read_bytes() == before
    assert len(commits(toy)) == 2


def test_the_recipe_gets_the_version_and_a_commit(taught: tuple[Toy, Path], tmp_path: Path) -> None:
    toy, store = taught
    version = publish(store, tmp_path / "bodies", 1)
    found = followed()
    assert (found.moved, found.teacher) == (True, Registered(str(store), "teacher", version))
    assert commits(toy)[0] == f"alpha: teacher teacher {version}"
    assert run(["git", "status", "--porcelain", "--untracked-files=no"], toy.folder) == ""
    folder = fetch_pretrained(teach(toy)["source"], teach(toy)["sha256"])
    assert sha256_of(folder / "model.safetensors") == teach(toy)["sha256"]
    assert followed().moved is False


def test_killed_before_the_commit_the_next_run_commits(
    taught: tuple[Toy, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, store = taught
    publish(store, tmp_path / "bodies", 1)

    class Killed(FlowError):
        pass

    def killed(*_: object) -> str:
        raise Killed

    with monkeypatch.context() as once:
        once.setattr(following, "commit_file", killed)
        assert isinstance(follow("alpha", return_state=True).result(raise_on_failure=False), Killed)
    assert len(commits(toy)) == 2
    assert followed().moved is True
    assert len(commits(toy)) == 3


def test_a_teacher_that_models_share_is_refused(taught: tuple[Toy, Path], tmp_path: Path) -> None:
    """By a YAML alias: the other model would get it too, and nobody said so."""
    toy, store = taught
    path = toy.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["models"]["beta"]["teach"] = params["models"]["alpha"]["teach"]
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    assert "&id001" in path.read_text()
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "shared"], toy.folder)
    publish(store, tmp_path / "bodies", 1)
    error = follow("alpha", return_state=True).result(raise_on_failure=False)
    assert isinstance(error, RecipeError)
    assert "models.alpha.teach is shared with beta by a YAML alias" in str(error)


def test_while_a_build_goes_on_nothing_is_written(taught: tuple[Toy, Path], tmp_path: Path) -> None:
    """Of whatever model: one that commits must end on the commit that it began from."""
    toy, store = taught
    publish(store, tmp_path / "bodies", 1)
    before = (toy.folder / "params.yaml").read_bytes()
    with alone(toy.folder / FOLDER / "beta.build"):
        assert follow("alpha", return_state=True).name == "Skipped"
    assert (toy.folder / "params.yaml").read_bytes() == before


def test_a_version_that_comes_back_is_another_commit(
    taught: tuple[Toy, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its build is another too; seen twice, it is one."""
    _, store = taught
    keys: list[str] = []
    monkeypatch.setattr(following, "start_once", lambda _, key: keys.append(key) or "run")
    second = publish(store, tmp_path / "bodies", 1)
    registry = Registry(store)
    for version in (second, "1.0.0", second):
        registry.alias("teacher", "production", version)
        followed(build="build/alpha")
        followed(build="build/alpha")
    assert len(keys) == 6
    assert len(set(keys)) == 3


def test_somebodys_changes_stay(taught: tuple[Toy, Path], tmp_path: Path) -> None:
    toy, store = taught
    publish(store, tmp_path / "bodies", 1)
    toy.change("alpha", "gate", "max_bytes", 5)
    before = (toy.folder / "params.yaml").read_bytes()
    error = follow("alpha", return_state=True).result(raise_on_failure=False)
    assert isinstance(error, HistoryError)
    assert "changed and not committed" in str(error)
    assert (toy.folder / "params.yaml").read_bytes() == before


def test_a_teacher_from_elsewhere_is_refused(toy: Toy, inside: Inside) -> None:
    inside(toy)
    error = follow("alpha", return_state=True).result(raise_on_failure=False)
    assert isinstance(error, RecipeError)
    assert "registry:URL#NAME@VERSION" in str(error)


@pytest.mark.parametrize(
    "source",
    ["registry:store#teacher@production", "registry:store", "registry:#teacher@1.0.0", "registry:store#@1.0.0"],
)
def test_a_source_without_a_version_is_refused(source: str) -> None:
    with pytest.raises(ModelError, match="names a version"):
        registered(source)


def test_a_version_that_is_not_there_is_an_error_in_one_line(taught: tuple[Toy, Path]) -> None:
    _, store = taught
    with pytest.raises(ModelError, match=r"registry:.*#teacher@9\.0\.0: NotFoundError: "):
        fetch_pretrained(f"registry:{store}#teacher@9.0.0", "0" * 64)
