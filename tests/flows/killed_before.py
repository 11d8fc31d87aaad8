"""`python -m tests.flows.killed_before STEP build ...`: the command line, killed with SIGKILL where a step of the hand-over would begin."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from slm_registry.changes import aliases

import flows.build
import flows.history
from flows.__main__ import main

#: Step -> where it is called.
STEPS: dict[str, tuple[Any, str]] = {
    "push": (flows.build, "push_outputs"),
    "commit": (flows.build, "commit_build"),
    "push of the branch": (flows.history, "push_branch"),
    "publish": (flows.build, "publish_bundle"),
    "alias": (aliases.Mover, "move"),
    "receipt": (flows.build, "write_receipt"),
}


def die(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    place, name = STEPS[sys.argv[1]]
    setattr(place, name, die)
    sys.exit(main(sys.argv[2:]))
