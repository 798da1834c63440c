"""SIGTERM, SIGUSR1 and Ctrl-C: training saves a checkpoint after the present update and ends.

SLURM sends SIGUSR1 some time before the end of a job (`sbatch --signal`), and SIGTERM when it takes the
machine back. Exit code TRY_AGAIN says that nothing is wrong and the same command goes on.
"""

import mmap
import os
import signal
import threading
from contextlib import contextmanager

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
ENDING = (signal.SIGTERM, signal.SIGUSR1)
GRACE = 600  # seconds that a data-loading worker goes on after SIGTERM, for the main process to end an update
TRAINING = mmap.mmap(-1, 1)  # 1 while the main process is in `noted`; forked workers see it too


class Stop:
    """A signal handler that notes what it got; a second Ctrl-C raises KeyboardInterrupt at once"""

    def __init__(self):
        self.number = 0  # of the last signal, 0 for none

    def __call__(self, number, frame):
        if number == signal.SIGINT == self.number:
            raise KeyboardInterrupt
        self.number = int(number)
        again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        # not through logging, which the signal may have interrupted
        os.write(2, f"\n{signal.Signals(number).name}: stopping after this update{again}\n".encode())


@contextmanager
def noted():
    """Inside, SIGTERM, SIGUSR1 and Ctrl-C are only noted, in the Stop that is returned; in a thread, where
    Python handles no signals, never"""
    stop, before = Stop(), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop) for number in (*ENDING, signal.SIGINT)}
    TRAINING[0] = 1
    try:
        yield stop
    finally:
        TRAINING[0] = 0
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once():
    """From here on SIGTERM and SIGUSR1 end the process with TRY_AGAIN, where there is nothing to save"""

    def end(number, frame):
        raise SystemExit(TRY_AGAIN)

    for number in ENDING:
        signal.signal(number, end)


def shield(worker):
    """`worker_init_fn` of a DataLoader: what a terminal or SLURM sends to all processes of a job leaves the
    worker at work, so that the main process can end its update. It ends with the main process, and GRACE
    seconds after SIGTERM anyway."""

    def last_a_little(number, frame):
        if TRAINING[0]:
            signal.alarm(GRACE)
        else:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, last_a_little)
