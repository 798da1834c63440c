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
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from lebench_sb.core.files import write_atomically
from lebench_sb.corpora._caveats import MINIATURE as MARKER
from lebench_sb.corpora.miniature.acoustics import RATE
from lebench_sb.corpora.miniature.layouts import layout
from lebench_sb.corpora.miniature.texts import TOGETHER, Recording, turns
from lebench_sb.corpora.miniature.texts import clips as all_clips
from lebench_sb.corpora.miniature.voices import check_engines

VERSION = 4  # of what is spoken: raise it when the grammar, the voices or the noise change
CHUNK = 25  # clips
SECONDS = (0.3, 600.0)  # shortest and longest recording, where a layout says nothing
# SVOX Pico reads memory it never wrote: one clip in forty came out different until glibc hands out zeros
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.perturb=255",
}


def build_miniature(output, seed=0, scale=1.0, workers=None, corpora=TOGETHER):
    """Speaks the `corpora` that `output` does not hold yet, each in its own layout; returns a summary (dict).

    By default Common Voice in `output`/fr (labelled) and MLS in `output`/mls_french (read speech), about 2
    hours at scale 1; `layouts.names()` lists all. `scale` multiplies the minutes of each part. What is
    finished with the same parameters is reused: "reused" is True when nothing was missing. ValueError for an
    unknown corpus, or if `output` holds a build of other parameters; RuntimeError that names what to install
    if the voices are missing, or a chunk's error.
    """
    output = Path(output).absolute()
    parameters = {"version": VERSION, "seed": seed, "scale": scale}
    for corpus in corpora:
        layout(corpus)
    marker = output / MARKER
    _claim(output, parameters)
    done = json.loads(marker.read_text())["corpora"] if marker.exists() else []
    missing = [corpus for corpus in corpora if corpus not in done]
    if not missing:
        return json.loads(marker.read_text()) | {"reused": True}
    check_engines()
    plan = all_clips(seed, scale, [*done, *missing])
    chunks = _chunks(plan, output, seed)
    _speak(chunks, workers or os.cpu_count())
    recordings = _recordings(plan, chunks, output)
    for corpus in missing:
        part = [(clip, r) for clip, r in zip(plan, recordings, strict=True) if clip.corpus == corpus]
        layout(corpus).write(output, *map(list, zip(*part, strict=True)))
    summary = parameters | {"corpora": [*done, *missing]} | summarise(plan, [r.seconds for r in recordings])
    write_atomically(marker, json.dumps(summary, indent=1) + "\n")
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
    write_atomically(note, json.dumps(parameters))


def _chunks(plan, output, seed):
    """Chunks in plan order: up to CHUNK clips of one speaker, as voices.py wants them."""
    by_speaker = defaultdict(list)
    for clip in plan:
        said = [asdict(turn) for turn in turns(clip)]
        by_speaker[clip.corpus, clip.speaker].append((str(output / layout(clip.corpus).path(clip)), said))
    chunks = []
    for (corpus, speaker), lines in by_speaker.items():
        for start in range(0, len(lines), CHUNK):
            part = lines[start : start + CHUNK]
            chunk = {"seed": seed, "corpus": corpus, "speaker": speaker.as_dict(), "clips": part}
            told = json.dumps([seed, chunk["speaker"], [(Path(path).name, said) for path, said in part]])
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


def _recordings(plan, chunks, output):
    """The Recording of each clip of `plan`; RuntimeError that names clips as long as none should be."""
    measured = {}
    for chunk in chunks:
        told = json.loads(Path(chunk["marker"]).read_text())["clips"]
        measured |= {path: _recording(clip) for (path, _), clip in zip(chunk["clips"], told, strict=True)}
    found = [measured[str(output / layout(clip.corpus).path(clip))] for clip in plan]
    wrong = []
    for clip, recording in zip(plan, found, strict=True):
        shortest, longest = getattr(layout(clip.corpus), "SECONDS", SECONDS)
        if not shortest <= recording.seconds <= longest:
            wrong.append(f"{layout(clip.corpus).path(clip)} {recording.seconds:.2f} s")
    if wrong:
        raise RuntimeError(f"{len(wrong)} clips are too short or too long: {', '.join(wrong[:5])}")
    return found


def _recording(clip):
    """What a marker says of a clip, samples as seconds"""
    return Recording(
        clip["samples"] / RATE,
        [(turn["start"] / RATE, turn["stop"] / RATE) for turn in clip["turns"]],
        [[(character, at / RATE) for character, at in turn["words"]] for turn in clip["turns"]],
        [[(at / RATE, name) for at, name in turn["phonemes"]] for turn in clip["turns"]],
    )


def summarise(plan, seconds):
    """Hours, utterances, voices, word forms of the whole; share of Common Voice's test words unseen in its
    train, where it was built."""
    words = {split: Counter() for split in ("train", "dev", "test")}
    forms, minutes = set(), Counter()
    for clip, duration in zip(plan, seconds, strict=True):
        minutes[f"{clip.corpus} {clip.split}"] += duration / 60
        said = [word for sentence in clip.sentences for word in sentence.words]
        forms.update(said)
        if clip.corpus == "commonvoice":
            words[clip.split].update(said)
    unseen = sum(count for word, count in words["test"].items() if word not in words["train"])
    total = words["test"].total()
    return {
        "hours": round(sum(seconds) / 3600, 3),
        "minutes": {part: round(total, 2) for part, total in minutes.items()},
        "utterances": len(plan),
        "voices": len({clip.speaker for clip in plan}),
        "word_forms": len(forms),
        **({"oov_percent": round(100 * unseen / total, 2)} if total else {}),
    }
