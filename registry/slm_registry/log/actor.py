"""Who the log names where nobody says."""

from __future__ import annotations

import getpass
import os
import socket


def default_actor() -> str:
    """$SLM_REGISTRY_ACTOR, or user@host."""
    named = os.environ.get("SLM_REGISTRY_ACTOR")
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container's user may have no name at all.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
