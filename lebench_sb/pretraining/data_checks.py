"""What pre-training and distillation ask of their utterances: frames enough for a mask, and no label."""

import math

import numpy as np
from transformers import Wav2Vec2Config

from lebench_sb.audio.waveforms import SAMPLE_RATE
from lebench_sb.encoders.encoder import geometry
from lebench_sb.manifests.audio_checks import survey_audio
from lebench_sb.manifests.columns import durations_of
from lebench_sb.manifests.labels import ids_of
from lebench_sb.pretraining.monitor.probes import Probe


def check_labels(splits, settings, findings):
    """Utterances shorter than one masked span (pre-training), or than one frame (distillation); a probe
    (`probe_csv`) without its labels or its audio, which the first validation would meet"""
    if settings.get("probe_csv"):
        check_probe(settings, findings)
    least, rate = shapes(settings)
    frames = int(settings.get("mask_length", 1))
    seconds = least / SAMPLE_RATE + (frames - 1) / rate
    for split, utterances in splits.items():
        short = np.flatnonzero(durations_of(utterances) < seconds - 0.5 / SAMPLE_RATE)
        if len(short):
            ids = ids_of(utterances)
            reason = f"shorter than {seconds:.3f} s, {frames} frames"
            findings.bad(split, reason + (" of --mask_length" if frames > 1 else ""), [ids[k] for k in short])


def check_probe(settings, findings):
    """Columns and recordings of the manifest that is probed. Raises UsageError for `probe_labels`"""
    path = settings["probe_csv"]
    probe = Probe(path, settings["probe_labels"], settings["data_folder"], settings["max_crop"], None)
    report = survey_audio({"probe_csv": probe.utterances}, lenient=())
    for kind, items in report.errors.found.items():
        for item in items:
            findings.refuse(kind, item)


def shapes(settings):
    """(fewest samples, frames per second) of the model that is trained, and not less than the teacher's"""
    if settings.get("init_from"):
        return geometry(settings["init_from"])
    usual = Wav2Vec2Config()  # a config may leave them out
    kernels, strides = (
        settings["config"].get(name, getattr(usual, name)) for name in ("conv_kernel", "conv_stride")
    )
    least = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        least = (least - 1) * stride + kernel
    if "teacher" in settings:
        least = max(least, geometry(settings["teacher"])[0])
    return least, SAMPLE_RATE / math.prod(strides)
