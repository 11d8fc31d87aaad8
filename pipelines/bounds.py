"""Whether a measurement holds a limit: said once for the choice, the recovery and the gate."""

from __future__ import annotations

#: Share of a limit that rounding may cost: -100 * -0.007 is not 0.7.
SLACK = 1e-9


def holds(measured: float, limit: float, *, at_most: bool) -> bool:
    """Whether a measurement is at most, or at least, a limit; not-a-number is neither."""
    slack = SLACK * abs(limit)
    return measured <= limit + slack if at_most else measured >= limit - slack
