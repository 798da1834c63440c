"""The pre-training recipe in this process"""

from scripts import load


def run(root, yaml, words, folder, **options):
    """Runs `hparams/<yaml>.yaml` -> the run's folder. options replace words of the form --key=value."""
    recipe = root / "recipes" / "pretraining" / "wav2vec2"
    kept = [word for word in words if word[2:].partition("=")[0] not in options]
    chosen = [f"--{key}={value}" for key, value in options.items()]
    yaml = str(recipe / "hparams" / f"{yaml}.yaml")
    load(recipe / "train.py").main([yaml, *kept, *chosen, "--output_folder", str(folder), "--noprogressbar"])
    return folder
