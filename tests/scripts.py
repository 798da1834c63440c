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


def pretrain(root, yaml, words, folder, **options):
    """Runs pre-training by `hparams/<yaml>.yaml` in this process -> the run's folder. options replace words
    of the form --key=value."""
    recipe = root / "recipes" / "pretraining" / "wav2vec2"
    kept = [word for word in words if word[2:].partition("=")[0] not in options]
    chosen = [f"--{key}={value}" for key, value in options.items()]
    yaml = str(recipe / "hparams" / f"{yaml}.yaml")
    load(recipe / "train.py").main([yaml, *kept, *chosen, "--output_folder", str(folder), "--noprogressbar"])
    return folder
