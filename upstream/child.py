"""Becomes a program that ends when its parent does: `python -m upstream.child PARENT_PID PROGRAM ARGUMENTS…`.

`halyard up` starts the services through this, so that they do not outlive it and keep its ports even if it is killed.
The wish survives `exec`, so nothing is left of this but the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:
            # It ended before this could be asked for.
            sys.exit(0)
    os.execv(program, sys.argv[2:])  # noqa: S606 - what the launcher chose, with no shell between


if __name__ == "__main__":
    main()
