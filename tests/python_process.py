"""`run_python(words)`: what `python WORDS` would do, without the seconds that imports take.

A server, one for each process of pytest, has imported what recipes import and forks itself for each request:
the child has arguments, environment, working folder and output of its own, as a new process has. Tests of
starting itself, of signals and of kills begin real processes.

`quick_python.py WORDS`, with the path of `open_door(folder)` in LEBENCH_TEST_PYTHON, is a program that does
so through such a server: for code that starts programs itself.
"""

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

PRELOADED = (
    "torch", "torchaudio", "transformers", "speechbrain", "matplotlib.pyplot", "scipy.stats", "pyarrow",
    "lebench_sb.training.run", "lebench_sb.pretraining.export", "lebench_sb.tasks.asr",
    "lebench_sb.tasks.ast", "lebench_sb.tasks.asv", "lebench_sb.tasks.sa", "lebench_sb.tasks.slu",
)  # fmt: skip
_server = []  # of this process


def run_python(words, cwd=None, env=None):
    """words: after `python` (a script, `-m` or `-c` first) -> subprocess.CompletedProcess with its texts.

    env: the whole environment; this process's with one thread where None.
    """
    words = [str(word) for word in words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if env is None else env
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        request = {"words": words, "cwd": str(cwd or os.getcwd()), "env": dict(environment)}
        connection = server()
        try:
            socket.send_fds(connection, [json.dumps(request).encode()], [out.fileno(), err.fileno()])
            answer = connection.recv(64)
            assert answer, "the server of Python processes has died"
        except BaseException:  # pytest's timeout: the answer still to come belongs to no later request
            stop_server()
            raise
        for file in (out, err):
            file.seek(0)
        texts = [file.read().decode("utf-8", "replace") for file in (out, err)]
    return subprocess.CompletedProcess([sys.executable, *words], int(answer), *texts)


def server():
    """The connection to this process's server, which is started where there is none yet"""
    if not _server or _server[0] != os.getpid():
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, __file__, str(its.fileno())],
            pass_fds=[its.fileno()],
            env=environment,
            process_group=0,
        )
        its.close()
        _server[:] = [os.getpid(), ours, process]
        atexit.register(ours.close)  # whose end it sees
    return _server[1]


def stop_server():
    """Ends the server and the program it runs; the next request starts another"""
    _, connection, process = _server
    _server.clear()
    connection.close()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def open_door(folder, preloaded):
    """Starts a server for `quick_python.py`, of any number of programs at once -> the path of its socket.
    preloaded: the modules that it imports first"""
    path = str(Path(folder) / "python.sock")
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(path)
    door.listen(64)
    words = [sys.executable, __file__, "door", str(door.fileno()), *preloaded]
    process = subprocess.Popen(words, pass_fds=[door.fileno()])
    atexit.register(process.kill)
    return path


def serve_door(door, preloaded):
    """Forks a child for each connection, which says its process number first and its exit code last"""
    import_all(preloaded)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = door.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            door.close()
            message, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
            connection.send(str(os.getpid()).encode())
            become(json.loads(message), *files, connection)
        connection.close()


def import_all(names):
    for name in names:
        __import__(name)


def serve(connection):
    """Forks a child for each request and answers with its exit code, until the other end is closed"""
    import_all(PRELOADED)
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if not message:
            return
        child = os.fork()
        if child == 0:
            connection.close()
            become(json.loads(message), *files)
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(request, out, err, connection=None):
    """The child: runs the words as a new interpreter would, tells its exit code, and ends"""
    os.dup2(out, 1)
    os.dup2(err, 2)
    code = 1
    try:
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        run(request["words"])
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        if connection is not None:
            connection.send(str(code & 0xFF).encode())
        os._exit(code & 0xFF)


def run(words):
    first, *rest = words
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "door":
        serve_door(socket.socket(fileno=int(sys.argv[2])), sys.argv[3:])
    else:
        serve(socket.socket(fileno=int(sys.argv[1])))
