"""Scripts of the repository in this process, and waiting for those in another"""

import importlib.util
import time


def load(path):
    """The module of a script, such as a recipe's train.py"""
    spec = importlib.util.spec_from_file_location("_".join(path.with_suffix("").parts[-3:]), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wait_for(condition, process, seconds=300):
    """Until condition() holds; fails where the process (its stderr a pipe) ends before, or the time does"""
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()[-3000:]
        assert time.time() < end
        time.sleep(0.02)
