"""A process that kills itself when `name` of `module``owner` is called for the `number`-th time.

`KILL.format(...)` is its program; `argv` holds the script it runs and that script's words.
"""

KILL = """
import os, runpy, signal, sys
import {module}
owner, name = {module}{owner}, {name!r}
real, calls = getattr(owner, name), []
def killed(*arguments, **options):
    calls.append(name)
    if len(calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(owner, name, killed)
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
