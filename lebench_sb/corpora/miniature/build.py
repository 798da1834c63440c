"""Builds the miniature: decides every clip, has each chunk spoken in a fresh process, then writes the
corpora's files.

What a chunk holds and in which order depends on the seed alone, never on the number of workers, and a chunk
whose marker is missing is spoken again from its first clip; so any number of workers, killed and restarted at
will, leave the same bytes.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from lebench_sb.corpora.miniature import layout_commonvoice, layout_mls
from lebench_sb.corpora.miniature.acoustics import RATE
from lebench_sb.corpora.miniature.texts import clips as all_clips
from lebench_sb.corpora.miniature.voices import check_engines, write_atomically

VERSION = 4  # of what is spoken: raise it when the grammar, the voices or the noise change
CHUNK = 25  # clips
SHORTEST, LONGEST = 1.0, 15.0  # seconds
LAYOUTS = {"commonvoice": layout_commonvoice, "mls": layout_mls}
MARKER = "miniature.done.json"
# SVOX Pico reads memory it never wrote: one clip in forty came out different until glibc hands out zeros
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.perturb=255",
}


def build_miniature(output, seed=0, scale=1.0, workers=None):
    """Writes `output`/fr (Common Voice, labelled) and `output`/mls_french (read speech) and returns a summary
    (dict).

    `scale` multiplies the minutes of each part (1: about 2 hours). A finished build of the same parameters is
    reused: the summary then has "reused": True. ValueError if `output` holds a build of other parameters;
    RuntimeError that names what to install if the voices are missing, or a chunk's error.
    """
    output = Path(output).absolute()
    parameters = {"version": VERSION, "seed": seed, "scale": scale}
    marker = output / MARKER
    _claim(output, parameters)
    if marker.exists():
        return json.loads(marker.read_text()) | {"reused": True}
    check_engines()
    plan = all_clips(seed, scale)
    chunks = _chunks(plan, output, seed)
    _speak(chunks, workers or os.cpu_count())
    seconds = _durations(plan, chunks, output)
    for corpus, layout in LAYOUTS.items():
        part = [(clip, s) for clip, s in zip(plan, seconds, strict=True) if clip.corpus == corpus]
        layout.write(output, *map(list, zip(*part, strict=True)))
    summary = parameters | summarise(plan, seconds)
    write_atomically(marker, lambda temporary: temporary.write_text(json.dumps(summary, indent=1) + "\n"))
    return summary | {"reused": False}


def _claim(output, parameters):
    """Records the parameters before the first clip; refuses a folder begun with others."""
    note = output / ".build" / "parameters.json"
    if note.exists() and json.loads(note.read_text()) != parameters:
        raise ValueError(
            f"{output} holds a miniature built with {note.read_text()}, not {json.dumps(parameters)}; "
            "choose another folder or delete it."
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(note, lambda temporary: temporary.write_text(json.dumps(parameters)))


def _chunks(plan, output, seed):
    """Chunks in plan order: up to CHUNK clips of one speaker, as voices.py wants them."""
    by_speaker = defaultdict(list)
    for clip in plan:
        by_speaker[clip.speaker].append((str(output / LAYOUTS[clip.corpus].path(clip)), clip.text))
    chunks = []
    for speaker, lines in by_speaker.items():
        for start in range(0, len(lines), CHUNK):
            part = lines[start : start + CHUNK]
            chunk = {"seed": seed, "speaker": speaker.as_dict(), "clips": part}
            told = json.dumps([seed, chunk["speaker"], [(Path(path).name, text) for path, text in part]])
            chunk["key"] = hashlib.sha256(told.encode()).hexdigest()
            chunk["marker"] = str(output / ".build" / f"{speaker.name}-{start // CHUNK:03d}.json")
            chunks.append(chunk)
    return chunks


def _is_spoken(chunk):
    """Whether the chunk's marker matches it; a marker is written after the last clip."""
    marker = Path(chunk["marker"])
    return marker.exists() and json.loads(marker.read_text())["key"] == chunk["key"]


def _speak(chunks, workers):
    """Speaks the chunks that are not yet spoken, `workers` processes at a time, with a progress bar."""
    for folder in sorted({Path(path).parent for chunk in chunks for path, _ in chunk["clips"]}):
        folder.mkdir(parents=True, exist_ok=True)
    waiting = [chunk for chunk in chunks if not _is_spoken(chunk)]
    total = sum(len(chunk["clips"]) for chunk in chunks)
    done = total - sum(len(chunk["clips"]) for chunk in waiting)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=total, initial=done, unit="clip", desc="speaking") as bar,
    ):
        jobs = {pool.submit(_speak_chunk, chunk): chunk for chunk in waiting}
        try:
            for job in as_completed(jobs):
                job.result()
                bar.update(len(jobs[job]["clips"]))
        except BaseException:  # do not start the other chunks before the error is shown
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _speak_chunk(chunk):
    environment = os.environ | ENVIRONMENT
    command = [sys.executable, "-c", "from lebench_sb.corpora.miniature.voices import main; main()"]
    done = subprocess.run(command, input=json.dumps(chunk), text=True, capture_output=True, env=environment)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]  # the last line of a traceback
        raise RuntimeError(f"Speaking {chunk['marker']} failed (exit {done.returncode}): {reason}")


def _durations(plan, chunks, output):
    """Seconds of each clip of `plan`; RuntimeError that names clips outside SHORTEST..LONGEST."""
    measured = {}
    for chunk in chunks:
        samples = json.loads(Path(chunk["marker"]).read_text())["samples"]
        measured |= {path: count / RATE for (path, _), count in zip(chunk["clips"], samples, strict=True)}
    wrong = [
        f"{path} {seconds:.2f} s" for path, seconds in measured.items() if not SHORTEST <= seconds <= LONGEST
    ]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} clips are not {SHORTEST} to {LONGEST} s long: {', '.join(wrong[:5])}"
        )
    return [measured[str(output / LAYOUTS[clip.corpus].path(clip))] for clip in plan]


def summarise(plan, seconds):
    """Hours, utterances, voices, word forms of the whole; share of labelled test words unseen in labelled
    train."""
    words = {split: Counter() for split in ("train", "dev", "test")}
    forms = set()
    for clip in plan:
        said = [word for sentence in clip.sentences for word in sentence.words]
        forms.update(said)
        if clip.corpus == "commonvoice":
            words[clip.split].update(said)
    unseen = sum(count for word, count in words["test"].items() if word not in words["train"])
    minutes = Counter()
    for clip, duration in zip(plan, seconds, strict=True):
        minutes[f"{clip.corpus} {clip.split}"] += duration / 60
    return {
        "hours": round(sum(seconds) / 3600, 3),
        "minutes": {part: round(total, 2) for part, total in minutes.items()},
        "utterances": len(plan),
        "voices": len({clip.speaker for clip in plan}),
        "word_forms": len(forms),
        "oov_percent": round(100 * unseen / max(1, words["test"].total()), 2),
    }
