"""The pre-training recipe in this process"""

import importlib.util


def run(root, yaml, words, folder, **options):
    """Runs `hparams/<yaml>.yaml` -> the run's folder. options replace words of the form --key=value."""
    recipe = root / "recipes" / "pretraining" / "wav2vec2"
    spec = importlib.util.spec_from_file_location("pretraining_train", recipe / "train.py")
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    kept = [word for word in words if word[2:].partition("=")[0] not in options]
    chosen = [f"--{key}={value}" for key, value in options.items()]
    yaml = str(recipe / "hparams" / f"{yaml}.yaml")
    train.main([yaml, *kept, *chosen, "--output_folder", str(folder), "--noprogressbar"])
    return folder
