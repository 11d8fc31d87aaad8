"""ONNX graphs that take the keys and values of what they have read, and give back longer ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_registry.errors import CorruptError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PAST, _PRESENT = "past_key_values.", "present."
#: A scalar with a default: for how many last positions logits are wanted, 0 for all.
_KEPT = "num_logits_to_keep"

#: Cache inputs of a graph by name, as onnxruntime's own values: what one step gives the next one takes, uncopied.
Cache = dict[str, Any]


class CachedGraph:
    """A session one step at a time. Inputs past_key_values.* that no present.* answers stay as they are given.

    Raises UsageError where the graph takes other inputs than `plain` and a float32 cache.
    """

    def __init__(self, session: Any, path: Path, plain: Sequence[str]) -> None:
        self._session = session
        inputs = {item.name: item for item in session.get_inputs()}
        answered = [item.name for item in session.get_outputs()]
        caches = [name for name in inputs if name.startswith(_PAST)]
        self._grown = [name for name in caches if present(name) in answered]
        self.fixed = [name for name in caches if name not in self._grown]
        self._shapes = {name: inputs[name].shape for name in self._grown}
        self._plain = [name for name in inputs if name not in caches and name != _KEPT]
        self._keeps = _KEPT in inputs or _KEPT in {item.name for item in session.get_overridable_initializers()}
        for name, item in inputs.items():
            wanted = "tensor(float)" if name in caches else "tensor(int64)"
            if item.type != wanted or name not in (*plain, *caches, _KEPT):
                raise UsageError(
                    f"{path}: input {name} ({item.type}) is unknown; it may take {', '.join(plain)}, int64, and "
                    f"{_PAST}*, float32: export it again"
                )
        missing = {"logits", *plain[:2]} - {*answered, *inputs}
        if missing or not self._grown:
            what = ", ".join(sorted(missing)) or f"{_PAST}* with its {_PRESENT}*"
            raise UsageError(f"{path}: {what} is missing; export it with its cache inside the graph")
        shape = next(item.shape for item in session.get_outputs() if item.name == "logits")
        #: How many tokens are scored; None where the file does not say.
        self.vocabulary: int | None = shape[-1] if shape and isinstance(shape[-1], int) else None

    def empty(self, batch: int) -> Cache:
        """The growing part of the cache before the first token."""
        import numpy as np

        shapes = {name: (batch, shape[1], 0, shape[3]) for name, shape in self._shapes.items()}
        return {name: as_value(np.zeros(shape, np.float32)) for name, shape in shapes.items()}

    def step(
        self, feed: Mapping[str, NDArray[np.int64]], cache: Cache, *, last: bool
    ) -> tuple[NDArray[np.float32], Cache]:
        """Logits [B, T, V] of this step's tokens, of the last one alone if `last` [B, 1, V], and the longer cache."""
        import numpy as np

        values = {name: as_value(feed[name]) for name in self._plain}
        if last and self._keeps:
            values[_KEPT] = as_value(np.array(1, np.int64))
        names = ["logits", *map(present, self._grown)]
        logits, *grown = run_values(self._session, names, values | cache)
        scores: NDArray[np.float32] = logits.numpy()
        return scores[:, -1:] if last else scores, cache | dict(zip(self._grown, grown, strict=True))

    def rows(self, cache: Cache, live: Sequence[int], cut: int = 0) -> Cache:
        """The cache of some rows, less the first `cut` tokens of what has grown."""
        return {
            name: as_value(value.numpy()[live][:, :, cut if name in self._shapes else 0 :])
            for name, value in cache.items()
        }


def run_values(session: Any, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
    """Outputs of a session by name. Raises CorruptError where the graph cannot compute them."""
    try:
        found: list[Any] = session.run_with_ort_values(list(names), dict(feed))
    except Exception as error:
        raise CorruptError(f"the model cannot run what its tokenizer gives it: {error}; export both again") from error
    return found


def as_value(array: NDArray[Any]) -> Any:
    """An array as a value of onnxruntime, which goes on to use its memory."""
    import numpy as np
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def present(name: str) -> str:
    """What a cache input is called where it comes out."""
    return name.replace(_PAST, _PRESENT, 1)
