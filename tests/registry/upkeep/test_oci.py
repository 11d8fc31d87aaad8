"""OCI image layouts: what is written is one, and what is read may be anything."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from slm_registry import CorruptError, NotFoundError, RefusedError, Registry, RegistryError, UsageError
from slm_registry.caching.eviction import Evictor
from slm_registry.cli import main
from slm_registry.plumbing.jsonio import canonical
from slm_registry.upkeep import oci

REF_NAME = re.compile(r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*")
MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


def export(registry: Registry, ref: str, out: Path) -> Path:
    found = registry.resolve(ref)
    return oci.export_layout(registry.store, registry.cache, found.model, found.version, found.digest, out)


def bring(registry: Registry, layout: Path, name: str, **options: Any) -> oci.Imported:
    publisher = replace(registry.publisher(name), actor="bob")
    return oci.import_layout(publisher, layout, registry.cache, **options)


@pytest.fixture
def layout(folder_registry: Registry, bundle: Path, tmp_path: Path) -> Path:
    (bundle / "sub").mkdir()
    (bundle / "sub" / "empty.md").write_bytes(b"")
    folder_registry.publish(bundle, "m", version="1.2.0", lineage={"git_commit": "abc", "x": 0.1})
    return export(folder_registry, "m", tmp_path / "layout")


def load(layout: Path, name: str) -> Any:
    return json.loads((layout / name).read_bytes())


def check_descriptor(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """image-spec v1.1 descriptor.md: the three required fields, and that they are true."""
    assert MEDIA_TYPE.fullmatch(descriptor["mediaType"])
    assert re.fullmatch(r"sha256:[a-f0-9]{64}", descriptor["digest"])
    data = (layout / "blobs" / "sha256" / descriptor["digest"][7:]).read_bytes()
    assert len(data) == descriptor["size"]
    assert hashlib.sha256(data).hexdigest() == descriptor["digest"][7:]
    assert all(isinstance(value, str) for value in descriptor.get("annotations", {}).values())
    return data


def test_the_layout_is_one_by_the_specification(layout: Path, bundle: Path) -> None:
    assert sorted(path.name for path in layout.iterdir()) == ["blobs", "index.json", "oci-layout"]
    assert load(layout, "oci-layout") == {"imageLayoutVersion": "1.0.0"}
    index = load(layout, "index.json")
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    (descriptor,) = index["manifests"]
    assert REF_NAME.fullmatch(descriptor["annotations"]["org.opencontainers.image.ref.name"])
    manifest = json.loads(check_descriptor(layout, descriptor))
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, descriptor["mediaType"])
    assert manifest["artifactType"] == descriptor["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    check_descriptor(layout, manifest["config"])
    files = {
        layer["annotations"]["org.cncf.model.filepath"]: check_descriptor(layout, layer) for layer in manifest["layers"]
    }
    assert files == {p.relative_to(bundle).as_posix(): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    named = {item["digest"][7:] for item in (descriptor, manifest["config"], *manifest["layers"])}
    assert {path.name for path in (layout / "blobs" / "sha256").iterdir()} == named
    assert not any(path.is_symlink() for path in layout.rglob("*"))


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (apt-get install skopeo)")
def test_skopeo_reads_and_copies_it(layout: Path, folder_registry: Registry, tmp_path: Path) -> None:
    def skopeo(*arguments: str) -> bytes:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
        done = subprocess.run(
            ["skopeo", "--insecure-policy", *arguments], capture_output=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    digest = folder_registry.resolve("m").digest
    raw = skopeo("inspect", "--raw", f"oci:{layout}:1.2.0")
    assert "sha256:" + hashlib.sha256(raw).hexdigest() == digest
    skopeo("copy", "--preserve-digests", f"oci:{layout}:1.2.0", f"oci:{tmp_path}/copy:tagged")
    elsewhere = Registry(tmp_path / "elsewhere", cache=tmp_path / "cache2")
    done = bring(elsewhere, tmp_path / "copy", "m", tag="tagged")
    assert (done.published.digest, done.same_manifest) == (digest, True)


def test_the_round_trip_keeps_the_bytes(layout: Path, folder_registry: Registry, url: str, tmp_path: Path) -> None:
    source = folder_registry.resolve("m")
    target = Registry(url + "2" if "://" not in url else url, cache=tmp_path / "cache2")
    done = bring(target, layout, "m", reason="moved here")
    assert (done.published.version, done.published.digest) == ("1.2.0", source.digest)
    assert (done.source, done.same_manifest, done.why, done.published.created) == (source.digest, True, "", True)
    assert target.show("m").lineage == {"git_commit": "abc", "x": 0.1}
    assert target.load("m").predict(["hello"])[0].label == "other"
    assert not bring(target, layout, "m").published.created
    again = export(target, "m@1.2.0", tmp_path / "again")
    assert (again / "index.json").read_bytes() == (layout / "index.json").read_bytes()
    assert list((tmp_path / "cache2" / ".tmp").iterdir()) == []


def test_another_name_or_version_says_why(layout: Path, folder_registry: Registry) -> None:
    done = bring(folder_registry, layout, "n")
    assert (done.published.version, done.same_manifest, done.why) == (
        "1.2.0",
        False,
        "it names m@1.2.0, and this is n@1.2.0",
    )
    done = bring(folder_registry, layout, "m", version="2.0.0")
    assert (done.same_manifest, done.why) == (False, "it names m@1.2.0, and this is m@2.0.0")
    assert folder_registry.show("m@2.0.0").lineage == {"git_commit": "abc", "x": 0.1}


def test_an_export_into_what_is_there(layout: Path, folder_registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert export(folder_registry, "m", tmp_path / "empty").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for out in (layout, tmp_path / "link", layout / "index.json"):
        with pytest.raises(UsageError, match="new or an empty"):
            export(folder_registry, "m", out)


def test_an_eviction_meanwhile_takes_nothing(
    layout: Path, folder_registry: Registry, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_blob = oci._copy_blob

    def copy_and_evict(*arguments: Any) -> None:
        copy_blob(*arguments)
        Evictor(folder_registry.cache.root).evict(0)

    monkeypatch.setattr(oci, "_copy_blob", copy_and_evict)
    bring(folder_registry, layout, "n")
    assert folder_registry.show("n").files == folder_registry.show("m").files


def test_a_copy_that_lost_a_file_is_not_published(
    layout: Path, folder_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_blob = oci._copy_blob

    def copy_and_lose(layout: Path, digest: str, size: int, target: Path) -> None:
        copy_blob(layout, digest, size, target)
        if target.name == "README.md":
            target.unlink()

    monkeypatch.setattr(oci, "_copy_blob", copy_and_lose)
    with pytest.raises(CorruptError, match=r"README\.md.*run it again"):
        bring(folder_registry, layout, "n")
    assert folder_registry.models() == ("m",)


class Forge:
    """Changes a layout and makes its digests true again."""

    def __init__(self, layout: Path) -> None:
        self.layout = layout
        self.index = load(layout, "index.json")
        self.manifest = load(layout, "blobs/sha256/" + self.index["manifests"][0]["digest"][7:])

    def blob(self, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.layout / "blobs" / "sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def layer(self, path: object, data: bytes, kind: str = "application/vnd.cncf.model.doc.v1.raw") -> None:
        annotations = {"org.cncf.model.filepath": path}
        self.manifest["layers"].append({"mediaType": kind, **self.blob(data), "annotations": annotations})

    def write(self) -> Path:
        self.index["manifests"][0].update(self.blob(canonical(self.manifest)))
        (self.layout / "index.json").write_bytes(canonical(self.index))
        return self.layout


def test_a_layout_of_another_tool(layout: Path, folder_registry: Registry) -> None:
    forge = Forge(layout)
    for layer in forge.manifest["layers"]:
        # As oras writes it.
        layer["annotations"] = {"org.opencontainers.image.title": layer["annotations"]["org.cncf.model.filepath"]}
        layer["mediaType"] = "application/octet-stream"
    del forge.manifest["annotations"]
    done = bring(folder_registry, forge.write(), "from-oras")
    assert (done.published.version, done.same_manifest) == ("1.0.0", False)
    assert "another tool" in done.why
    assert folder_registry.show("from-oras").lineage["imported_from"]["manifest"] == done.source
    assert folder_registry.load("from-oras").predict(["hello"])[0].label == "other"


@pytest.mark.parametrize(
    "path",
    ["../evil", "/tmp/evil", "a/../../evil", "a\\evil", "CONFIG.json", "config.json/evil", "", "evil\0", 7, None],
)
def test_hostile_paths(layout: Path, folder_registry: Registry, tmp_path: Path, path: object) -> None:
    forge = Forge(layout)
    forge.layer(path, b"evil")
    with pytest.raises(CorruptError):
        bring(folder_registry, forge.write(), "bad")
    assert not list(tmp_path.rglob("*evil*"))
    assert "bad" not in folder_registry.models()


@pytest.mark.parametrize(
    ("path", "data", "kind"),
    [
        ("w.pkl", b"x", "application/octet-stream"),
        ("w.dat", b"\x80\x04K\x01.", "application/octet-stream"),
        ("w.tar", b"x", "application/vnd.cncf.model.weight.v1.tar"),
        ("w", b"x", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ],
)
def test_forbidden_content(layout: Path, folder_registry: Registry, path: str, data: bytes, kind: str) -> None:
    forge = Forge(layout)
    forge.layer(path, data, kind)
    with pytest.raises(RefusedError):
        bring(folder_registry, forge.write(), "bad")
    assert "bad" not in folder_registry.models()


def weights(layout: Path) -> Path:
    return max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)


def link_out(layout: Path) -> None:
    blob = weights(layout)
    blob.rename(layout.parent / "outside")
    blob.symlink_to(layout.parent / "outside")


def pipe(layout: Path) -> None:
    blob = weights(layout)
    blob.unlink()
    os.mkfifo(blob)


def linked_folder(layout: Path) -> None:
    (layout / "blobs").rename(layout.parent / "moved")
    (layout / "blobs").symlink_to(layout.parent / "moved")


def field(**changes: object) -> Callable[[Path], None]:
    def act(layout: Path) -> None:
        forge = Forge(layout)
        forge.manifest.update(changes)
        forge.write()

    return act


def index(**changes: object) -> Callable[[Path], None]:
    def act(layout: Path) -> None:
        forge = Forge(layout)
        forge.index["manifests"][0].update(changes)
        (layout / "index.json").write_bytes(canonical(forge.index))

    return act


BROKEN: dict[str, Callable[[Path], object]] = {
    "no marker": lambda layout: (layout / "oci-layout").unlink(),
    "another version": lambda layout: (layout / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}'),
    "no index": lambda layout: (layout / "index.json").unlink(),
    "an index that is none": lambda layout: (layout / "index.json").write_text("[]"),
    "an index without manifests": lambda layout: (layout / "index.json").write_text("{}"),
    "a deep index": lambda layout: (layout / "index.json").write_text('{"a":' + "[" * 9999 + "]" * 9999 + "}"),
    "a huge index": lambda layout: (layout / "index.json").write_bytes(b" " * ((4 << 20) + 1)),
    "a blob cut short": lambda layout: weights(layout).write_bytes(weights(layout).read_bytes()[:-1]),
    "a blob that grew": lambda layout: weights(layout).write_bytes(weights(layout).read_bytes() + b"x"),
    "a blob that is missing": lambda layout: weights(layout).unlink(),
    "a blob that is a link": link_out,
    "a blob that is a pipe": pipe,
    "a folder that is a link": linked_folder,
    "no layers": field(layers=[]),
    "layers that are none": field(layers=[1]),
    "annotations that are none": field(annotations=[1]),
    "no config": field(config=None),
    "a config that is far away": field(config={"digest": "sha256:../../x", "size": 1}),
    "an index in the index": index(mediaType="application/vnd.oci.image.index.v1+json"),
    "a size that is none": index(size=-1),
    "a size that is too much": index(size=1 << 40),
    "a digest of another kind": index(digest="sha512:" + "0" * 128),
    "a digest of nothing": index(digest="sha256:" + "0" * 64),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_or_hostile_layout(layout: Path, folder_registry: Registry, name: str) -> None:
    BROKEN[name](layout)
    with pytest.raises(CorruptError) as raised:
        bring(folder_registry, layout, "bad")
    assert len(str(raised.value)) < 1000
    assert folder_registry.models() == ("m",)


def test_tags(layout: Path, folder_registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"did you mean '1\.2\.0'"):
        bring(folder_registry, layout, "n", tag="1.2.1")
    forge = Forge(layout)
    forge.index["manifests"].append({**forge.index["manifests"][0], "annotations": {}})
    (layout / "index.json").write_bytes(canonical(forge.index))
    with pytest.raises(UsageError, match="2 manifests"):
        bring(folder_registry, layout, "n")
    assert bring(folder_registry, layout, "n", tag="1.2.0").published.created
    for wrong in (tmp_path / "nowhere", layout / "index.json"):
        with pytest.raises(RegistryError):
            bring(folder_registry, wrong, "n")


def test_the_commands(
    url: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SLM_REGISTRY_URL", url)
    assert main(["publish", str(bundle), "m", "--version", "1.2.0"]) == 0
    assert main(["export", "m@1.2.0", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path}/out:1.2.0\n")
    assert main(["import", str(tmp_path / "out"), "n", "--reason", "a copy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"]["version"] == "1.2.0"
    assert main(["import", str(tmp_path / "out"), "m"]) == 0
    assert "bytes are those of the layout" in capsys.readouterr().out
    assert main(["gc", "--grace", "0s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unmarked"] == []
    assert main(["gc", "--grace", "soon"]) == 2
