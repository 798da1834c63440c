"""Small runs whose numbers are computed from their texts: rows, record, folder."""

import numpy as np

from lebench_sb.evaluation.metrics.bootstrap import interval
from lebench_sb.evaluation.metrics.errors import count_errors, rate
from lebench_sb.evaluation.provenance import describe_run
from lebench_sb.evaluation.results import metric_entry, write_results

COLUMNS = {"WER": ("word", "WER_errors", "WER_words"), "CER": ("char", "CER_errors", "CER_chars")}


def make_rows(error_share, seed=0, speakers=24, per_speaker=12):
    """Utterances of 4 to 9 words, of which a system garbles `error_share`; the references never change."""
    texts, noise = np.random.default_rng(42), np.random.default_rng(seed)
    rows = []
    for i in range(speakers * per_speaker):
        words = [f"mot{n}" for n in texts.integers(50, size=texts.integers(4, 10))]
        heard = [word + "x" if noise.random() < error_share else word for word in words]
        row = {
            "ID": f"utt{i:04d}",
            "spk_id": f"spk{i % speakers:02d}",
            "gender": "FMU"[i % 3],
            "duration": 2.5,
        }
        reference, hypothesis = " ".join(words), " ".join(heard)
        for unit, errors, length in COLUMNS.values():
            row[errors], row[length] = count_errors([reference], [hypothesis], unit).statistics[0].tolist()
        rows.append({**row, "reference": reference, "hypothesis": hypothesis})
    return rows


def make_record(rows, system="results/demo/pretraining/encoder", seed=1234, **changes):
    """A valid record whose metrics belong to `rows`"""
    metrics = {}
    for name, (_, *columns) in COLUMNS.items():
        found = interval([[row[c] for c in columns] for row in rows], rate, [row["spk_id"] for row in rows])
        metrics |= metric_entry(name, found.value, "%", found, "lower")
    split = {"sha256": "ab12", "utterances": len(rows), "hours": 0.2}
    command = f"python recipes/ASR/CommonVoice/train.py hparams/ctc.yaml --seed {seed}"
    record = {
        "task": "ASR", "corpus": "CommonVoice", "split": "test", "system": system, "layer": "weighted",
        "mode": "frozen", "metrics": metrics, **describe_run(seed, {"seed": seed}, command),
        "data": {"train": split, "valid": {}, "test": split}, "text_normaliser": "fr-1",
        "parameters": {"encoder": 94_371_712, "trained": 640}, "caveats": ["one seed"],
        "time": {"train_s": 61.4, "device_h": 0.02},
    }  # fmt: skip
    return {**record, **changes}


def write_run(folder, error_share=0.2, noise=0, **changes):
    rows = make_rows(error_share, noise)
    write_results(folder, make_record(rows, **changes), rows)
    return folder
