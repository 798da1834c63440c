"""Speech translation in its usage modes on the miniature, on real speech, and what its README says."""

import csv
import re
from pathlib import Path

import pytest
from python_process import run_python

from lebench_sb.core.extends import whole
from lebench_sb.corpora.own import prepare_own
from lebench_sb.evaluation.results import read_results

RECIPE = Path("recipes/AST/mTEDx")
MODES = {
    "mfb_baseline": "filterbank",
    "task_agnostic": "frozen",
    "task_specific_ssl": "continued SSL, frozen",
    "task_specific_asr": "ASR first, frozen",
    "end_to_end_fine_tuning": "end to end",
}


def run(root, script, yaml, words, output):
    argv = [
        str(root / script / "train.py"),
        str(root / script / "hparams" / yaml),
        *words,
        "--num_workers",
        "0",
    ]
    argv += ["--output_folder", str(output), "--noprogressbar"]
    done = run_python(argv)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def translate(root, data, encoder, output, yaml="transformer.yaml", language="en", more=()):
    small = {
        "transformer.yaml": ["--source={size: 16, layers: 1, channels: 16, hidden: 16}"],
        "end_to_end.yaml": ["--source={size: 16}", "--encoder_warmup_steps", "0"],
    }
    words = ["--data_folder", str(data), "--ssl_hub", str(encoder), "--target_language", language, *more]
    words += ["--number_of_epochs", "1", "--max_length", "8", "--head={layers: 1, hidden: 16}"]
    return run(root, RECIPE, yaml, [*words, *small[yaml]], output)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature.build import build_miniature

    folder = tmp_path_factory.mktemp("miniature")
    build_miniature(folder, scale=0.02, workers=1, corpora=("mtedx",))
    return folder


@pytest.mark.slow
def test_every_mode_runs_on_the_miniature(root, miniature, tiny_pretraining, tmp_path):
    """Frozen, continued SSL, ASR first, end to end; the filterbank and the untrained control"""
    baseline = translate(root, miniature, "mel_filterbank", tmp_path / "mel")
    own = ["--data_folder", str(miniature), "--min_duration", "0.2"]
    own += [w for s in ("train", "valid") for w in (f"--{s}_csv", str(baseline / "manifests" / f"{s}.csv"))]
    few = ("--number_of_up", "--valid_every")
    tiny = [w for w in tiny_pretraining[6:] if not w.startswith((*few, "--num_workers"))]
    tiny += ["--number_of_updates=2", "--valid_every_updates=2"]
    first = run(root, Path("recipes/pretraining/wav2vec2"), "mini.yaml", [*own, *tiny], tmp_path / "first")
    again = ["--init_from", str(first / "pretraining")]
    second = run(
        root, Path("recipes/pretraining/wav2vec2"), "mini.yaml", [*own, *tiny, *again], tmp_path / "second"
    )
    words = [
        *own,
        "--test_csv",
        str(baseline / "manifests" / "test.csv"),
        "--ssl_hub",
        str(first / "encoder"),
    ]
    words += ["--layer", "last", "--freeze", "False", "--encoder_warmup_steps", "0"]
    words += ["--number_of_epochs", "1", "--head={hidden: 8}", "--corpus", "mTEDx fr-en"]
    asr = run(root, Path("recipes/ASR/CommonVoice"), "ctc.yaml", words, tmp_path / "asr")
    encoder = first / "encoder"
    for name, source, yaml, language in (
        ("frozen", encoder, "transformer.yaml", "en"),
        ("untrained", f"random:{encoder}", "transformer.yaml", "es"),
        ("continued", second / "encoder", "transformer.yaml", "es"),
        ("asr-first", asr / "encoder", "transformer.yaml", "pt"),
        ("end-to-end", encoder, "end_to_end.yaml", "pt"),
    ):
        folder = translate(root, miniature, source, tmp_path / name, yaml, language)
        record = read_results(folder)
        assert record["corpus"] == f"mTEDx fr-{language}" and record["system"] == str(source)
        assert set(record["metrics"]) == {"BLEU", "chrF2"} and "synthetic speech" in record["caveats"]
        assert all(len(entry["ci95"]) == 2 for entry in record["metrics"].values())
        rows = list(csv.DictReader((folder / "utterances.csv").open(encoding="utf-8")))
        texts = miniature / f"fr-{language}" / "data" / "test" / "txt" / f"test.{language}"
        assert sorted(row["reference"] for row in rows) == sorted(texts.read_text("utf-8").split("\n")[:-1])
        assert (folder / "encoder" / "config.json").exists() == (name == "end-to-end")


@pytest.mark.slow
def test_real_speech(root, shared_data, tmp_path):
    """443 French prompts of a telephone system with their English translations, one speaker"""
    columns = {"ID": "ID", "wav": "wav", "wrd": "transcript", "translation_en": "translation_en"}
    columns["spk_id"] = "spk_id"
    pack = shared_data / "dev_pack"
    where = ["language=fr", "translation_en!="]
    told = prepare_own(
        pack / "tasks" / "ast.csv", columns, pack, tmp_path / "m", where, "split", normaliser="none"
    )
    assert sum(marker["utterances"] for marker in told["splits"].values()) == 443
    manifests = [w for s in told["splits"] for w in (f"--{s}_csv", str(tmp_path / "m" / f"{s}.csv"))]
    more = [*manifests, "--corpus", "Asterisk prompts fr-en"]
    record = read_results(translate(root, pack, "mel_filterbank", tmp_path / "r", more=more))
    assert (
        record["data"]["test"]["utterances"] == 42 and "same speaker in train and test" in record["caveats"]
    )
    assert record["metrics"]["BLEU"]["method"].startswith("bootstrap over utterances: fewer than 10")


def test_the_published_figures_of_the_readme_are_the_files(root):
    text = (root / RECIPE / "README.md").read_text(encoding="utf-8")
    section = text.split("## Published figures")[1].split("## ")[0]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]
    shown = [cells for cells in shown if len(cells) == 8 and not cells[0].startswith(("mode", "---"))]
    places = [(split, language) for split in ("valid", "test") for language in ("en", "es", "pt")]
    with open(root / RECIPE / "published.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(shown) == len(rows) == 20
    for cells, row in zip(shown, rows, strict=True):
        figures = [f"{row[f'{s}_{g}_bleu']} ± {row[f'{s}_{g}_plus_minus']}" for s, g in places]
        assert cells == [MODES[row["mode"]], row["features"], *figures]


@pytest.mark.parametrize("name", ["transformer.yaml", "end_to_end.yaml"])
def test_a_yaml_says_where_its_values_come_from(root, name):
    text = whole(root / RECIPE / "hparams" / name)
    for key in ("seed", "number_of_epochs", "head_lr", "subwords", "beam", "label_smoothing", "head"):
        assert re.search(rf"^{key}: .*\[C", text, re.M), key
