"""`python -P temporary.py HOST PORT`: Prefect's API for a build from the command line, as Prefect itself would start it.

Run as a file, so that it is this one wherever it is started from, and imports nothing of the factory.
"""

from __future__ import annotations

import gc
import sys


def serve(host: str, port: int) -> None:
    """Answer until the process is ended."""
    gc.disable()  # modules are most of a start, and no garbage: looking through them for some is a sixth of it
    import uvicorn
    from prefect.server.api.server import create_app

    gc.freeze()
    gc.enable()
    uvicorn.run(create_app, factory=True, host=host, port=port, log_level="error", lifespan="on")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
