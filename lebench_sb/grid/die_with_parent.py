"""python die_with_parent.py ARGUMENTS: becomes `python ARGUMENTS`, a process that ends with its parent.

The kernel ends it, so no run goes on without its grid after a SIGKILL (Linux; elsewhere it goes on, and its
successor waits for it). A file of its own, since code between fork and exec is unsafe in a process with
threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main():
    if sys.platform == "linux":
        parent = int(os.environ.pop("LEBENCH_PARENT"))
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os.kill(os.getpid(), signal.SIGKILL)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
