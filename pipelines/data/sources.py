"""Where rows come from: a local file or folder, an http(s) or s3 address, or a pointer to a pinned file of the hub."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.config import GivenSplits, TaggedData, TextData
from pipelines.data.reading import read_bytes, read_columns, read_lines
from pipelines.data.rows import UNCUT, UNLABELLED, Row
from pipelines.data.tagging import joined
from pipelines.errors import DataError, ResourceError, TransientError

#: Seconds without a byte after which a remote source counts as silent.
SILENCE = 60
TRY_AGAIN = "it may pass; run the same command again"


class HubPointer(BaseModel):
    """A `*.hub.json` file: one file of a hub data set at one commit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern="^[0-9a-f]{40}$")
    file: str = Field(min_length=1)


@dataclass(frozen=True)
class SourceFile:
    """A file that was read: what it was for, its digest, and how many rows it held."""

    split: str
    file: str
    sha256: str
    bytes: int
    rows: int


def read_source(source: str, data: TextData) -> tuple[list[Row], list[SourceFile]]:
    """Every row of a recipe's source, and a record of each file read.

    Raises DataError where a file is absent, forbidden or malformed, TransientError where a remote did not answer.
    """
    rows: list[Row] = []
    files: list[SourceFile] = []
    with tempfile.TemporaryDirectory(prefix="slm-source-") as folder:
        for split, location, shown in _places(source, data):
            path = local_copy(location, Path(folder) / split)
            second = [] if split == UNLABELLED or data.second_column is None else [data.second_column]
            read = _read(path, location, [data.text_column, *second])
            spaced = partial(joined, location=location) if isinstance(data, TaggedData) else _as_is
            rows += [Row(split, shown, line, *spaced([*cells, None][:2], line)) for line, cells in read]
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files.append(SourceFile(split, shown, digest, path.stat().st_size, len(read)))
    return rows, files


def _as_is(cells: list[str | None], _line: int) -> list[str | None]:
    return cells


def _read(path: Path, location: str, columns: Sequence[str]) -> list[Any]:
    if len(columns) == 1 and path.suffix.lower() == ".txt":
        return read_lines(path, location)
    return read_columns(path, location, columns)


def _files(data: TextData) -> list[tuple[str, str | None]]:
    """Split -> file in the source folder (None: the source is the file)."""
    splits = data.splits
    if isinstance(splits, GivenSplits):
        named: list[tuple[str, str | None]] = [("train", splits.train), ("test", splits.test)]
        if isinstance(splits.validation, str):
            named.insert(1, ("validation", splits.validation))
    else:
        named = [(UNCUT, splits.file)]
    return [*named, (UNLABELLED, data.unlabelled_file)] if data.unlabelled_file is not None else named


def _places(source: str, data: TextData) -> Iterator[tuple[str, str, str]]:
    """(split, location, name in the source) of each file; of a name with `*` every file that it matches, in the order of their names."""
    for split, name in _files(data):
        if name is None:
            yield split, source, Path(urlsplit(source).path).name
        elif "*" not in name:
            yield split, join(source, name), name
        else:
            yield from ((split, join(source, found), found) for found in _matching(source, name))


def _matching(source: str, pattern: str) -> list[str]:
    """Names in a source folder that a pattern matches; raises as read_source, and DataError where there are none."""
    place = join(source, pattern)
    scheme, separator, inside = source.rstrip("/").partition("://")
    if scheme.lower() == "s3" and separator:
        inside += "/"
        with _s3_errors(place):
            names = [key.removeprefix(inside) for key in _s3().glob(inside + pattern)]
    elif "://" in source:
        raise DataError(
            f"{place}: what matches cannot be asked of an http server; name each file, or use s3:// or a folder"
        )
    else:
        try:
            names = [path.relative_to(source).as_posix() for path in Path(source).glob(pattern) if path.is_file()]
        except (NotImplementedError, ValueError) as error:
            raise DataError(f"{place}: {error}; write a name below the folder, as in 2026-*.csv or **/*.csv") from error
    if not names:
        raise DataError(f"{place}: no file matches; check data.source and data.splits in params.yaml")
    return sorted(names)


def join(source: str, name: str) -> str:
    """A file of a source folder, local or remote."""
    return f"{source.rstrip('/')}/{name}" if "://" in source else str(Path(source) / name)


def local_copy(location: str, folder: Path) -> Path:
    """The file on this machine: the path itself, or a copy of the remote one in `folder`; raises as read_source."""
    scheme, name = location.partition("://")[0].lower(), Path(urlsplit(location).path).name
    if "://" not in location:
        path = Path(location)
    elif scheme in ("http", "https", "s3"):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (name or "unnamed")
        (_download_s3 if scheme == "s3" else _download_http)(location, path)
    else:
        raise DataError(
            f"{location}: addresses of kind {scheme}:// are not read; use a path, http://, https:// or s3://"
        )
    return _from_hub(path, location) if path.name.endswith(".hub.json") else path


# --- http -------------------------------------------------------------------------------------------------------------


def _download_http(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=SILENCE) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
            announced = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        raise _http_error(url, error.code, error.reason) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise TransientError(
            f"{url}: no answer ({getattr(error, 'reason', error)}); {TRY_AGAIN}, or check the address"
        ) from error
    if announced is not None and int(announced) != path.stat().st_size:
        raise TransientError(f"{url}: {path.stat().st_size} of {announced} bytes came; {TRY_AGAIN}")


def _http_error(url: str, code: int, reason: str) -> DataError | TransientError:
    if code >= 500 or code in (408, 425, 429):
        return TransientError(f"{url}: the server answered {code} {reason}; {TRY_AGAIN}")
    if code in (401, 403, 407):
        return DataError(
            f"{url}: the server answered {code} {reason}; it wants credentials: fetch the file and give its path"
        )
    return DataError(f"{url}: the server answered {code} {reason}; check data.source and data.splits in params.yaml")


# --- s3 ---------------------------------------------------------------------------------------------------------------


def _download_s3(url: str, path: Path) -> None:
    with _s3_errors(url):
        _s3().get_file(url, str(path))


def _s3() -> Any:
    import s3fs

    limits = {"connect_timeout": SILENCE, "read_timeout": SILENCE, "retries": {"max_attempts": 2}}
    store = s3fs.S3FileSystem(config_kwargs=limits, skip_instance_cache=True)
    store.retries = 1  # the flow retries; a second layer here would only hide the wait
    return store


@contextmanager
def _s3_errors(url: str) -> Iterator[None]:
    """What the store's client raises, as errors of ours."""
    from botocore import exceptions as aws

    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{url}: no such object or bucket; check data.source and data.splits in params.yaml") from error
    except (PermissionError, aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound) as error:
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL for your own store"
        raise DataError(f"{url}: access refused ({error}); {remedy}") from error
    except (aws.EndpointConnectionError, aws.HTTPClientError, TimeoutError, ConnectionError) as error:
        raise TransientError(f"{url}: no answer ({error}); {TRY_AGAIN}, or check AWS_ENDPOINT_URL") from error
    except OSError as error:  # s3fs: what the server said, unless it maps to one of the above
        raise TransientError(f"{url}: the store answered {error}; {TRY_AGAIN}") from error


# --- hub --------------------------------------------------------------------------------------------------------------


def _from_hub(pointer: Path, location: str) -> Path:
    """The pinned file that a pointer names, out of the hub's cache or the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    asked = read_pointer(pointer, location)
    what = f"{location}: {asked.file} of {asked.repo} at {asked.revision}"
    try:
        return Path(hf_hub_download(asked.repo, asked.file, repo_type="dataset", revision=asked.revision))
    except RepositoryNotFoundError as error:  # a gated one is of this kind too
        remedy = "check `repo`, and set HF_TOKEN where it is private"
        raise DataError(f"{what}: no such data set, or not yours to read; {remedy}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        # The client reports every answer but a few as "not in the cache"; what the hub said is the cause of that.
        answer = getattr(error if isinstance(error, HfHubHTTPError) else error.__cause__, "response", None)
        if answer is not None:
            raise _http_error(what, answer.status_code, "(hub)") from error
        raise TransientError(f"{what}: the hub does not answer and its cache lacks the file; {TRY_AGAIN}") from error
    except OSError as error:
        raise ResourceError(f"{what}: cannot be stored: {error}; free space or set HF_HOME") from error


def read_pointer(pointer: Path, location: str) -> HubPointer:
    """A checked `*.hub.json`; DataError naming the key that is wrong and what is allowed."""
    try:
        return HubPointer.model_validate(json.loads(read_bytes(pointer, location)))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{location}: not JSON ({error}); write {{'repo': 'org/name', 'revision': '<commit>', 'file': 'train.csv'}}"
        ) from error
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(str(part) for part in item["loc"]) or "the file"
        wanted = (
            "repo (org/name), revision (the full 40-digit commit, not a branch) and file are needed, and nothing else"
        )
        raise DataError(f"{location}: {key}: {item['input']!r}: {item['msg']}; {wanted}") from error
