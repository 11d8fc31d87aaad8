"""The search: which parts and quantizations are worth measuring, from estimated costs and losses on validation data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.exploring.points import dominates
from pipelines.progress import Progress
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class Candidate:
    """A part in a quantization, with what is estimated of it."""

    part: Slice
    quantization: str
    p50_ms: float
    bytes: int
    loss: float


#: The places of a candidate's costs.
MILLISECONDS, BYTES, LOSS = range(3)
#: Answers what is estimated of a part in a quantization.
Estimate = Callable[[Slice, str], Candidate]


def search(
    space: Sequence[Slice], quantizations: Sequence[str], estimate: Estimate, trials: int, seed: int
) -> list[Candidate]:
    """Up to `trials` different candidates: all there are, or what Optuna's NSGA-II finds (Deb et al. 2002)."""
    pairs = [(part, name) for part in space for name in quantizations]
    found: dict[tuple[Slice, str], Candidate] = {}
    with Progress("explore: search", min(trials, len(pairs))) as progress:

        def look(part: Slice, name: str) -> Candidate:
            found[part, name] = estimate(part, name)
            progress.advance()
            return found[part, name]

        if len(pairs) > trials:
            _evolve(space, quantizations, look, trials, seed)
        else:
            for pair in pairs:
                look(*pair)
    return list(found.values())


def _evolve(space: Sequence[Slice], quantizations: Sequence[str], look: Estimate, trials: int, seed: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * 3, sampler=optuna.samplers.NSGAIISampler(seed=seed))
    names = ("intermediate_size", "num_attention_heads", "vocabulary")
    choices = {name: list(dict.fromkeys(getattr(part, name) for part in space if part.layers)) for name in names}
    choices["layers"] = list(dict.fromkeys(part.layers for part in space))

    def objective(trial: optuna.Trial) -> tuple[float, float, float]:
        sizes = {name: options[trial.suggest_int(name, 0, len(options) - 1)] for name, options in choices.items()}
        part = Slice(**sizes) if sizes["layers"] else Slice((), 0, 0, sizes["vocabulary"])
        found = look(part, quantizations[trial.suggest_int("quantization", 0, len(quantizations) - 1)])
        return found.p50_ms, float(found.bytes), found.loss

    study.optimize(objective, n_trials=trials)


def worth_measuring(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """The best `count`: front after front; of the last one its fastest, most accurate and smallest, and the rest thinned evenly along the milliseconds."""
    left = list(dict.fromkeys(candidates))
    chosen: list[Candidate] = []
    while left and len(chosen) < count:
        front = sorted(
            (one for one in left if not any(dominates(_costs(other), _costs(one)) for other in left)),
            key=lambda one: one.p50_ms,
        )
        chosen += _thinned(front, count - len(chosen))
        left = [one for one in left if one not in set(front)]
    return sorted(chosen, key=lambda one: one.p50_ms)


def _thinned(front: Sequence[Candidate], count: int) -> list[Candidate]:
    """At most `count` of a front: what is best at one of the costs, and others evenly spaced."""
    if len(front) <= count:
        return list(front)
    if count == 1:
        return [front[len(front) // 2]]
    best = [min(front, key=lambda one: _costs(one)[cost]) for cost in (MILLISECONDS, LOSS, BYTES)]
    ends = list(dict.fromkeys(best))[:count]
    others = [one for one in front if one not in ends]
    room = count - len(ends)
    return ends + [others[(2 * at + 1) * len(others) // (2 * room)] for at in range(room)]


def _costs(one: Candidate) -> tuple[float, float, float]:
    return one.p50_ms, one.bytes, one.loss
