"""Every recipe on the same few recordings, in this process, with what its optimiser and its stages saw."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from scripts import load

from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.trees import Tree, as_conllu
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.training.brain import TEST, VALID

ROOT = Path(__file__).parents[2]
EPOCHS = 3
MAX_NORM = 1e-3  # of the gradients: so little that every update is clipped
# words, UPOS, heads, relations, the words with concepts, translation
SENTENCES = [
    ("le chat dort", "DET NOUN VERB", (2, 3, 0), "det nsubj root", "<qui> le chat > dort", "The cat sleeps."),
    ("il pleut encore ici", "PRON VERB ADV ADV", (2, 0, 2, 2), "expl:subj root advmod advmod",
     "il pleut encore <lieu> ici >", "It still rains here."),
    ("oui merci", "INTJ INTJ", (0, 1), "root discourse", "<reponse> oui > merci", "Yes, thank you!"),
]  # fmt: skip
COUNTS = {"train": 6, "valid": 4, "test": 5}
TAGGER = ["--head={embedding: 8, hidden: 8, layers: 1, buckets: 16}", "--asr_run", "{folder}/asr"]
DECODER = [
    "--head={rnn_size: 8, rnn_layers: 1, dnn_size: 9, decoder_size: 7, attention_size: 6, embedding: 5}",
    "--vocabulary_size", "30", "--beam", "3", "--tokens_per_state", "0.1",
    "--head_lr", "100",  # Adadelta's steps are as small as clipped gradients: float32 would not tell them all
]  # fmt: skip
TRACE = ["--trace_column", "calm", "--chunk_seconds", "0.5"]
AST = ["--average_checkpoints", "0", "--max_length", "8", "--head={layers: 1, hidden: 16}"]
TREE = [
    "--recogniser={hidden: 16, layers: 1, context: 8, context_layers: 1}",
    "--parser={word_hidden: 8, word_layers: 1, hidden: 8, layers: 1, mlp: 8}",
]
# (task, YAML): the words that make its model small and, where the manifests do not, name its labels
SMALL = {
    ("AER", "conv_pool"): ["--head={hidden: 8}"],
    ("AER", "gru"): [*TRACE, "--head={hidden: 8}"],
    ("AER", "lintanh"): TRACE,
    ("AER", "mean_pool"): ["--head={projector: 8}"],
    ("ASR", "crdnn"): DECODER,
    ("ASR", "crdnn_filterbank"): [DECODER[0].replace("{", "{channels: [2, 2], "), *DECODER[1:]],
    ("ASR", "ctc"): ["--head={hidden: 8}"],
    ("ASR", "ctc_dnn"): ["--head={hidden: 8}"],
    ("AST", "end_to_end"): [*AST, "--source={size: 16}"],
    # its rate rises for 10,000 updates: the first would change no weight that float32 could tell
    ("AST", "transformer"): [*AST, "--source={size: 16, layers: 1, channels: 16, hidden: 16, project: 8}",
                             "--schedule={warmup: 2}"],
    ("ASV", "ecapa"): ["--head={channels: [16, 16, 16, 16, 48], attention_channels: 8, se_channels: 8}",
                       "--embedding_size", "8", "--chunk", "0.5", "--trials", "made"],
    ("SA", "wav2tree"): TREE,
    ("SLU", "cascade"): TAGGER,
    ("SLU", "ctc"): ["--head={hidden: 8}"],
    ("SLU", "finetune"): ["--head={hidden: 8}"],
    ("SLU", "pyramid"): ["--head={hidden: 8}"],
    ("SLU", "pyramid_decoder"): ["--head={hidden: 8, decoder_hidden: 8}"],
    ("SLU", "pyramid_words"): ["--head={hidden: 8}"],
    ("SLU", "words"): ["--head={hidden: 8}"],
}  # fmt: skip
NO_SSL = {"cascade", "crdnn_filterbank"}  # YAMLs without an SSL encoder: nothing to unfreeze
MODES = {"frozen": ["--freeze", "True"], "end-to-end": ["--freeze", "False", "--encoder_warmup_steps", "0"]}


def recipes():
    """YAMLs of all recipes that learn from labels, sorted"""
    found = sorted(ROOT.glob("recipes/*/*/hparams/*.yaml"))
    return [path for path in found if path.parts[-4] != "pretraining"]  # tests/pretraining has them


def has_data(path):
    return (path.parts[-4], path.stem) in SMALL


def name_of(path):
    return f"{path.parts[-4]}-{path.parts[-3]}-{path.stem}"


def write_data(corpus, folder):
    """Copies some of the tone corpus's recordings, with manifests of every label a recipe learns from"""
    for split, count in COUNTS.items():
        found = {u.id: u for u in read_manifest(corpus / f"{split}.csv", corpus)}
        made = []
        for number in range(count):
            u, wav = found[f"{split}{number}"], folder / f"{split}{number}.wav"
            shutil.copy(u.wav, wav)
            labels = labels_of(number, folder / f"{u.id}.csv", u.duration)
            speaker = f"{split}{number % 2}"
            made.append(Utterance(u.id, str(wav), u.duration, speaker=speaker, gender="F", labels=labels))
        assert len({u.duration for u in made}) >= 3
        write_manifest(folder / f"{split}.csv", made, folder, {})


def labels_of(number, trace, seconds):
    """{label: value} of recording `number`; writes its trace"""
    words, upos, heads, relations, semantics, translation = SENTENCES[number % len(SENTENCES)]
    tree = Tree(*(tuple(text.split()) for text in (words, upos)), heads, tuple(relations.split()))
    times = [0.1 * k for k in range(round(10 * seconds) + 1)]
    rows = "".join(f"{t:.1f},{(t * (1 + number) / 2) % 1:.3f}\n" for t in times)
    trace.write_text("time,calm\n" + rows, encoding="utf-8")
    emotion = ("joie", "peur")[number % 2]
    return {"wrd": words, "semantics": semantics, "translation_en": translation, "emotion": emotion,
            "trace": str(trace), "tree": as_conllu(tree)}  # fmt: skip


def words(path, mode, folder, encoder, output):
    """The command line of a recipe. folder: of `write_data`"""
    made = ["--data_folder", str(folder), "--output_folder", str(output), "--noprogressbar"]
    made += [w for split in COUNTS for w in (f"--{split}_csv", str(folder / f"{split}.csv"))]
    made += ["--num_workers", "0", "--number_of_epochs", str(EPOCHS), "--max_batch_seconds", "8"]
    made += ["--max_grad_norm", str(MAX_NORM), "--checkpoint_every_updates", "0"]
    if path.stem not in NO_SSL:
        made += ["--ssl_hub", str(encoder), *MODES[mode]]
    small = SMALL[path.parts[-4], path.stem]
    return [str(path), *made, *(word.replace("{folder}", str(folder)) for word in small)]


@dataclass
class Watched:
    """A run: its Brain, its datasets, and what `watch` noted of it"""

    brain: object = None
    datasets: dict = None
    before: dict = None  # weights before the first update
    after: dict = None  # and after it
    gradients: dict = None  # of the first update
    norms: list = field(default_factory=list)  # of the gradients that each update took
    states: dict = field(default_factory=dict)  # weights and buffers by the epoch, or TEST, scored with them
    rows: list = None  # of the test set


def recipe(path):
    """The module `train.py` of a recipe's YAML"""
    return load(path.parents[1] / "train.py")


def recognise(path, folder, encoder):
    """The recognition run that the cascade at `path` reads"""
    asr = path.with_name("words.yaml")
    recipe(asr).main(words(asr, "frozen", folder, encoder, folder / "asr"))


def run(path, argv, merits):
    """Assembles a recipe, trains and tests it; its validation scores become `merits`, one per epoch, the
    higher the better -> Watched"""
    made, module = Watched(), recipe(path)

    def watched(brain, utterances, datasets):
        made.brain, made.datasets = brain, datasets
        watch(made, merits)
        brain.fit(datasets["train"], datasets["valid"])
        made.rows = brain.evaluate(datasets["test"])

    module.fit_and_test = watched
    module.main(argv)
    return made


def watch(made, merits):
    """Notes what the run of `made.brain` sees of its gradients and weights"""
    brain = made.brain
    init_optimizers, run_stage, scores = brain.init_optimizers, brain.run_stage, brain.scores
    key, sign = brain.hparams.key_metric, -1 if brain.hparams.key_metric_is_better == "lower" else 1

    def with_watched_step():
        init_optimizers()
        brain.optimizer.step = watched_step(made, brain.optimizer.step)

    def noted(loader, stage, epoch):
        made.states.setdefault(epoch if stage == VALID else stage, snapshot(brain.modules.state_dict()))
        return run_stage(loader, stage, epoch)

    def replaced(rows):
        return scores(rows) | {key: sign * merits[brain.hparams.epoch_counter.current - 1]}

    brain.init_optimizers, brain.run_stage, brain.scores = with_watched_step, noted, replaced


def watched_step(made, step):
    """An optimiser's `step` that notes the gradients it takes, and the weights around the first update"""

    def watched():
        named = dict(made.brain.modules.named_parameters())
        grads = {name: p.grad for name, p in named.items() if p.grad is not None}
        made.norms.append(float(torch.stack([g.norm() for g in grads.values()]).norm()))
        first = made.before is None
        if first:
            made.before, made.gradients = snapshot(named), snapshot(grads)
        step()
        if first:
            made.after = snapshot(named)

    return watched


def snapshot(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same(one, other):
    """Whether two `snapshot`s are equal"""
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def lines(made, stage):
    """The lines of `steps.jsonl` of a stage, in words"""
    found = map(json.loads, (made.brain.folder / "steps.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in found if line["stage"] == stage]


def score_test(made, seconds):
    """The test set in batches of at most so many padded seconds -> its rows, mean loss, calls of modules"""
    brain, calls = made.brain, []
    brain.hparams.max_batch_seconds = seconds
    brain.modules.load_state_dict(made.states[TEST])
    for name, parameter in brain.modules.named_parameters():
        if not name.startswith("encoder") and parameter.ndim > 1:
            parameter.data *= 3.0  # heads hardly trained say nearly the same of every frame, padding or not
    hooks = [m.register_forward_hook(lambda *_: calls.append(1)) for m in brain.modules.values()]
    loss = brain.run_stage(brain.loader(made.datasets["test"], TEST), TEST, None)
    for hook in hooks:
        hook.remove()
    return brain.rows, loss, len(calls)
