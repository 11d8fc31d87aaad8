"""Running a bundle with numpy, onnxruntime and tokenizers alone."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from slm_registry.errors import CorruptError, InputTypeError, UsageError
from slm_registry.files import open_regular, os_errors
from slm_registry.jsonio import parse_object

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slm_registry.records import Resolved

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Tokenizers without a limit write a number like 1e30.
_NO_LIMIT = 1_000_000
_DEFAULT_LENGTH = 512
DEFAULT_BATCH = 32
# These count positions from pad_token_id + 1, so that many of them are no room for tokens.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "xlm-roberta-xl"}


class Prediction(NamedTuple):
    """The most probable label of a text, and its probability."""

    label: str
    probability: float


class _Parts(NamedTuple):
    """What a model holds that is worth freeing."""

    tokenizer: Any
    session: Any


class Model(abc.ABC):
    """A ready model of any kind: a runtime is a class below this one, with an entry in `_RUNTIMES`.

    One instance may be used by many threads at once. `close` frees its memory as soon as the calls that are under way
    have ended; any later call raises UsageError. As a context manager it closes itself.
    """

    task: ClassVar[str]
    max_length: int
    batch_size: int
    # Which version it is, where a registry loaded it.
    resolved: Resolved | None = None
    # What else ends with it: a registry takes its files as in use until then.
    on_close: Callable[[], None] | None = None
    _parts: _Parts | None = None

    @classmethod
    @abc.abstractmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        threads: int = 1,
        max_length: int | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> Self:
        """Load a bundle's folder as it is."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._parts is None

    def close(self) -> None:
        """Give the memory back; once more does nothing."""
        self._parts = None
        # Of several threads that close it one takes this.
        release = self.__dict__.pop("on_close", None)
        if release is not None:
            release()

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> _Parts:
        """The parts, held by the caller until it is done with them."""
        parts = self._parts
        if parts is None:
            raise UsageError("the model is closed; load it again")
        return parts


class TextClassifier(Model):
    """A text classifier from config.json, tokenizer.json, model.onnx and, if there is one, tokenizer_config.json."""

    task = "text-classification"

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, threads: int, max_length: int | None, batch_size: int
    ) -> None:
        self.labels = _labels(config, folder)
        tokenizer_config = _read_json(folder / "tokenizer_config.json", missing={})
        self.max_length = _length(config, tokenizer_config, max_length)
        self._pad_id = _pad_id(config)
        self._pad_left = tokenizer_config.get("padding_side") == "left"
        self.batch_size = batch_size
        self._threads = threads
        tokenizer = _load_tokenizer(folder / "tokenizer.json", self.max_length)
        session = _load_session(folder / "model.onnx", threads)
        self._check_model(session, folder / "model.onnx")
        self._inputs = tuple(item.name for item in session.get_inputs())
        self._parts = _Parts(tokenizer, session)

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        threads: int = 1,
        max_length: int | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> Self:
        """Load a bundle's folder as it is.

        `threads` is what one call computes with, `batch_size` how many texts go through the model at once. Raises
        UsageError where a file is missing or a number cannot be meant, CorruptError where a file cannot be read.
        """
        folder = Path(path)
        _at_least_one("threads", threads)
        _at_least_one("batch_size", batch_size)
        config = _read_json(folder / "config.json")
        return cls(folder, config, threads=threads, max_length=max_length, batch_size=batch_size)

    def predict(self, texts: Sequence[str], batch_size: int | None = None) -> list[Prediction]:
        """The most probable label of each text, in the order of the texts. Raises as `predict_proba` does."""
        rows = self.predict_proba(texts, batch_size)
        best = rows.argmax(axis=1)
        return [Prediction(self.labels[index], float(row[index])) for row, index in zip(rows, best, strict=True)]

    def predict_proba(self, texts: Sequence[str], batch_size: int | None = None) -> NDArray[np.float32]:
        """Probabilities [N, C], float32, columns in the order of `labels`.

        Texts longer than `max_length` tokens are cut. Without `batch_size` the model's own is taken. Raises
        InputTypeError for anything but a sequence of str, UsageError after `close`.
        """
        import numpy as np

        tokenizer, session = self._opened()
        rows = _checked_texts(texts)
        batch_size = _at_least_one("batch_size", self.batch_size if batch_size is None else batch_size)
        result = np.empty((len(rows), len(self.labels)), dtype=np.float32)
        encoded = self._encode(tokenizer, rows)
        # Texts of one length share a batch, so that little of it is padding.
        order = sorted(range(len(rows)), key=lambda index: len(encoded[index].ids))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            result[batch] = _softmax(self._logits(session, [encoded[index] for index in batch]))
        return result

    def _logits(self, session: Any, encodings: Sequence[Any]) -> NDArray[np.float32]:
        """Raw scores [batch, C]. Raises CorruptError where the model cannot take what the tokenizer gives."""
        try:
            logits: NDArray[np.float32] = session.run(None, self._feed(encodings))[0]
        except Exception as error:
            raise CorruptError(
                f"the model cannot run what its tokenizer gives it: {error}; export both again"
            ) from error
        if logits.shape != (len(encodings), len(self.labels)):
            raise CorruptError(
                f"the model answers {logits.shape} to {len(encodings)} texts and {len(self.labels)} labels"
            )
        return logits

    def _encode(self, tokenizer: Any, texts: list[str]) -> list[Any]:
        with _tokenizing("the tokenizer cannot encode these texts"):
            if self._threads > 1:
                return list(tokenizer.encode_batch(texts))
            # encode_batch would start threads of its own, one for each core.
            return [tokenizer.encode(text) for text in texts]

    def _feed(self, encodings: Sequence[Any]) -> dict[str, NDArray[np.int64]]:
        """The model's inputs [batch, longest], int64, padded."""
        import numpy as np

        longest = max([1, *(len(encoding.ids) for encoding in encodings)])
        feed = {name: np.zeros((len(encodings), longest), dtype=np.int64) for name in self._inputs}
        if "input_ids" in feed:
            feed["input_ids"][:] = self._pad_id
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            span = slice(longest - length, longest) if self._pad_left else slice(0, length)
            values = {"input_ids": encoding.ids, "attention_mask": 1, "token_type_ids": encoding.type_ids}
            for name, array in feed.items():
                array[row, span] = values[name]
        return feed

    def _check_model(self, session: Any, path: Path) -> None:
        for item in session.get_inputs():
            if item.name not in _INPUTS or item.type != "tensor(int64)":
                allowed = ", ".join(_INPUTS)
                raise UsageError(f"{path}: input {item.name} ({item.type}) is unknown; it may take {allowed}, int64")
        output = session.get_outputs()[0]
        width = output.shape[-1] if output.shape else None
        if output.type != "tensor(float)" or (isinstance(width, int) and width != len(self.labels)):
            raise UsageError(
                f"{path}: output {output.name} is {output.type} {output.shape}; float32 [N, C] with the "
                f"{len(self.labels)} labels of config.json was expected"
            )


# What a task, as the model's architecture names it after "For", is run by.
_RUNTIMES: Mapping[str, type[TextClassifier]] = {
    "SequenceClassification": TextClassifier,
}


def load_folder(
    folder: Path, *, threads: int = 1, max_length: int | None = None, batch_size: int = DEFAULT_BATCH
) -> TextClassifier:
    """A ready model for what the folder's config.json says it is. Raises UsageError where nothing runs it."""
    architectures = _read_json(folder / "config.json").get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    runtime = _RUNTIMES.get(str(named).rpartition("For")[2])
    if runtime is None:
        known = ", ".join(f"...For{task}" for task in _RUNTIMES)
        raise UsageError(f"{folder / 'config.json'}: architectures is {architectures!r}; this release runs {known}")
    return runtime.from_folder(folder, threads=threads, max_length=max_length, batch_size=batch_size)


def _at_least_one(what: str, value: int) -> int:
    if type(value) is not int or value < 1:
        raise UsageError(f"{what} is {value!r}; give a whole number, 1 or more")
    return value


def _read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    if not path.exists():
        if missing is not None:
            return missing
        raise UsageError(f"{path} is missing; a bundle holds config.json, tokenizer.json and model.onnx")
    with os_errors("read", path), open_regular(path) as file:
        return parse_object(file.read((1 << 20) + 1), str(path))


def _labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    named = config.get("id2label")
    if not isinstance(named, dict) or len(named) < 2 or set(named) != {str(index) for index in range(len(named))}:
        raise UsageError(f'{folder / "config.json"}: id2label must name every class, from "0" on, two or more')
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise UsageError(f"{folder / 'config.json'}: problem_type {config['problem_type']!r} is not supported")
    return tuple(str(named[str(index)]) for index in range(len(named)))


def _pad_id(config: Mapping[str, Any]) -> int:
    value = config.get("pad_token_id")
    if value is None:
        return 0
    if type(value) is not int or abs(value) >= 1 << 31:
        raise UsageError(f"config.json: pad_token_id is {str(value)[:40]!r}; it must be a token's number, or null")
    return value


def _length(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], asked: int | None) -> int:
    """The smallest of the limits that are given."""
    if asked is not None and (type(asked) is not int or asked < 3):
        raise UsageError(f"max_length is {asked!r}; give a whole number of tokens, 3 or more")
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in _OFFSET_POSITIONS:
        positions -= _pad_id(config) + 1
    limits = [positions, tokenizer_config.get("model_max_length"), asked]
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _NO_LIMIT]
    return min(known, default=_DEFAULT_LENGTH)


def _load_tokenizer(path: Path, max_length: int) -> Any:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise UsageError(f"{path} is missing; save the model's fast tokenizer into the folder")
    with _tokenizing(f"{path}: not a tokenizer"):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
    return tokenizer


@contextlib.contextmanager
def _tokenizing(problem: str) -> Iterator[None]:
    """Make a CorruptError of what a tokenizer raises."""
    try:
        yield
    except BaseException as error:
        # A panic of its Rust code is no Exception, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptError(f"{problem}: {error}") from error


def _load_session(path: Path, threads: int) -> Any:
    # Otherwise onnxruntime writes a device id below the user's home on import. It must be set before that import, and
    # somebody who set it to another value is not overruled.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    if not path.is_file():
        raise UsageError(f"{path} is missing; export the model to ONNX into the folder")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # What goes wrong comes as an exception; it need not stand on standard error too.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CorruptError(f"{path}: onnxruntime cannot load it: {error}") from error


def _checked_texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str | bytes):
        raise InputTypeError(f"a list of texts was expected, found one {type(texts).__name__}; write predict([text])")
    try:
        rows = list(texts)
    except TypeError as error:
        raise InputTypeError(f"a list of texts was expected, found {type(texts).__name__}") from error
    for index, row in enumerate(rows):
        if not isinstance(row, str):
            raise InputTypeError(f"text {index} is {type(row).__name__} ({str(row)[:40]}); every text must be a str")
        try:
            row.encode()
        except UnicodeEncodeError as error:
            raise InputTypeError(f"text {index} cannot be written as UTF-8: {error.reason}; decode it first") from error
    return rows


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Row by row, safe for large values."""
    import numpy as np

    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return result
