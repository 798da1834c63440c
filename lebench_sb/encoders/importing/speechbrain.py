"""wav2vec 2.0 checkpoints of SpeechBrain.

Two classes of speechbrain.integrations.huggingface.wav2vec2 write them: `Wav2Vec2Pretrain`
(`model.wav2vec2.*`, `model.quantizer.*`, `model.project_hid.*`, `model.project_q.*`: three of the ten
LeBenchmark models are published so) and `Wav2Vec2`, its fine-tuned encoder (`model.feature_extractor.*`,
`model.encoder.*` ...).
"""

from lebench_sb.core.errors import DataError
from lebench_sb.encoders.folders.torch_files import check_tensors, first_five

FILE = "wav2vec2.ckpt"
PREFIX = "model."
# weight norm before and since torch 2.1
WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def read_weights(content, path):
    """What `torch.load` gave -> {transformers' name: float32 tensor}. Raises DataError for other content."""
    others = [str(name) for name in content if not str(name).startswith(PREFIX)]
    if others:
        raise DataError(
            f"{path} is not a checkpoint of SpeechBrain's Wav2Vec2Pretrain or Wav2Vec2, whose weights all "
            f"begin with {PREFIX!r}: {len(others)} others: {first_five(others)}. Nor is it fairseq's, which "
            "holds `model` and `cfg` or `args`."
        )
    renamed = {}
    for name, weight in check_tensors(content, path).items():
        stem, _, last = name.removeprefix(PREFIX).rpartition(".")
        renamed[f"{stem}.{WEIGHT_NORM.get(last, last)}"[0 if stem else 1 :]] = weight.float()
    return renamed
