"""`python -m integrations_dagster.sandbox --storage DIR [--port N]`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from integrations_dagster.sandbox.server import SandboxError, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m integrations_dagster.sandbox", description=__doc__)
    parser.add_argument("--storage", type=Path, required=True, help="folder that holds the sandbox's state")
    parser.add_argument("--port", type=int, default=0, help="0: the last one if it is free, else any")
    parser.add_argument("--verbose", action="store_true", help="log each request")
    parser.add_argument(
        "--detach", action="store_true", help="serve from a background process; print its id and return"
    )
    arguments = parser.parse_args()
    if arguments.detach:
        # The process that serves is nobody's child, so nobody has to wait for it when it ends.
        pid = os.fork()
        if pid:
            sys.stdout.write(f"{pid}\n")
            return 0
        os.setsid()
        # The caller reads standard output to its end.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        serve(arguments.storage, arguments.port, quiet=not arguments.verbose)
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
