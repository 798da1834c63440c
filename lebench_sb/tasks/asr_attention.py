"""Speech recognition by a decoder with attention over subwords, trained jointly with CTC.

Letters: B utterances, S states, L tokens, V tokens there are (number V is the CTC blank).
"""

from speechbrain.utils.distributed import run_on_main
from torch.nn import functional as F

from lebench_sb.manifests.targets import check_targets
from lebench_sb.tasks.asr import TranscriptionBrain, datasets
from lebench_sb.tasks.asr_ctc import normalise_of
from lebench_sb.tasks.brain import with_modules
from lebench_sb.tasks.decoding.beam import beam_search
from lebench_sb.text import subwords
from lebench_sb.training.brain import TEST, TRAIN


def attention_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (AttentionBrain, datasets): subwords learnt from the training texts, the head sized
    for them.

    Raises UsageError or DataError as lebench_sb.text.subwords does.
    """
    texts = [u.labels["wrd"] for u in utterances["train"]]
    folder = hparams["output_folder"]
    run_on_main(subwords.learn, args=(texts, hparams["vocabulary_size"], folder))
    pieces = subwords.load(folder)
    head = hparams["head"](output_size=len(pieces))
    check_targets(utterances, "wrd", pieces.encode, head, hparams)
    brain = AttentionBrain(with_modules(hparams, head=head), hparams, run_opts, hparams["checkpointer"])
    brain.subwords, brain.normalise = pieces, normalise_of(hparams)
    return brain, datasets(utterances)


class AttentionBrain(TranscriptionBrain):
    """modules: encoder and head (heads.crdnn.CRDNN). subwords: decoding.subwords.Subwords."""

    subwords = None

    def compute_forward(self, batch, stage):
        """-> what the head says of the frames and the texts, and the texts' tokens (B, L), -100 beyond"""
        decoder_inputs, labels = (tokens.to(self.device) for tokens in self.subwords.batch(batch.wrd))
        return *self.modules.head(*self.encode(batch, stage), decoder_inputs), labels

    def compute_objectives(self, predictions, batch, stage):
        """Mean over utterances of `ctc_weight` x CTC + (1 - `ctc_weight`) x cross-entropy, both per token;
        CTC in the first `ctc_epochs` epochs only. On valid and test also the rows of the scores"""
        states, lens, ctc, log_probs, labels = predictions
        joint = self.hparams.epoch_counter.current <= self.hparams.ctc_epochs
        weight = self.hparams.ctc_weight if joint else 0.0
        loss = (1 - weight) * cross_entropy(log_probs, labels, self.hparams.label_smoothing)
        # with weight 0 too, so that every parameter has a gradient in every process
        loss = loss + weight * ctc_loss(ctc, lens, labels, self.subwords.end)
        if stage != TRAIN:
            self.rows += self.score_texts(batch, self.decode(states, lens, stage))
        return loss.mean()

    def decode(self, states, lens, stage):
        """states (B, S, d), lens (B,) -> B texts: with `beam` hypotheses on test, `valid_beam` on valid"""
        hparams, texts = self.hparams, []
        head = self.modules.head
        beam = hparams.beam if stage == TEST else hparams.valid_beam
        limits = (lens.cpu() * hparams.tokens_per_state).ceil().long().clamp(min=2)
        size = max(1, hparams.decoding_rows // beam)
        for i in range(0, len(states), size):
            part = slice(i, i + size)
            steps = hparams.decoding(
                head=head, states=states[part, : int(lens[part].max())], lens=lens[part], beam=beam,
                end=self.subwords.end, limits=limits[part],
            )  # fmt: skip
            start, end, most = self.subwords.start, self.subwords.end, int(limits[part].max())
            found = beam_search(steps, start, end, beam, most)
            texts += [" ".join(self.subwords.decode(each.tokens).split()) for each in found]
        head.decoder.attn.reset()
        return texts


def cross_entropy(log_probs, labels, smoothing):
    """log_probs (B, L, V), labels (B, L) with -100 beyond the end -> (B,), mean over tokens"""
    losses = F.cross_entropy(log_probs.transpose(1, 2), labels, reduction="none", label_smoothing=smoothing)
    return losses.sum(1) / (labels != -100).sum(1)


def ctc_loss(ctc, lens, labels, end):
    """ctc log-probabilities (B, S, V + 1), lens (B,), labels (B, L) -> (B,), per token; 0 where there
    are more tokens than states"""
    tokens = labels.masked_fill(labels == end, -100)
    counts = (tokens != -100).sum(1)
    losses = F.ctc_loss(
        ctc.transpose(0, 1), tokens[tokens != -100], lens.to(counts.device), counts,
        blank=ctc.shape[2] - 1, reduction="none", zero_infinity=True,
    )  # fmt: skip
    return losses / counts.clamp(min=1)
