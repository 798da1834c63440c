"""What the Brains of all tasks share: an encoder, a head on its frames, a comparison with a trivial baseline.

Letters: B utterances, F frames, D features.
"""

from lebench_sb.evaluation import intervals
from lebench_sb.training import checks
from lebench_sb.training.brain import TRAIN, SSLBrain
from lebench_sb.training.data import sample_lengths
from lebench_sb.training.wrapping import pretrained_parameters


def with_modules(hparams, **made):
    """The modules of a loaded YAML and those made for these data, {name: module}; checkpoints hold both"""
    for name, module in made.items():
        hparams["checkpointer"].add_recoverable(name, module)
    return {**hparams["modules"], **made}


class TaskBrain(SSLBrain):
    """modules: {"encoder": a waveform encoder, "head": ..., others of the task}"""

    def trivial_baseline(self, rows):
        """(what it does, its rows) of the trivial baseline, which knows nothing of the audio: like `rows`,
        with other statistics"""
        raise NotImplementedError(
            f"{type(self).__name__} says nothing of a trivial baseline to compare with."
        )

    def parameter_groups(self):
        """Two: what came with the encoder's checkpoint, and the rest"""
        head = ([], self.hparams.head_lr, 0)
        # a debug run is too short for a warm-up, and is there to show that everything works
        encoder = ([], self.hparams.encoder_lr, 0 if self.debug else self.hparams.encoder_warmup_steps)
        for name, module in self.modules.items():
            pretrained = set(map(id, pretrained_parameters(module))) if name == "encoder" else set()
            for parameter in module.parameters():
                (encoder if id(parameter) in pretrained else head)[0].append(parameter)
        return [head, encoder]

    def encode(self, batch, stage):
        """A batch -> frames (B, F, D), frame_lens (B,): of waveforms, augmented in training if the encoder is
        trained, or of the encoder's cached states; in training masked by `hparams.mask`"""
        if self.cache is None:
            wavs, wav_lens = batch.sig
            if stage == TRAIN and self.trains_encoder:
                # A frozen encoder hears the recording as it is, so that its frames may be computed once.
                wavs, wav_lens = self.hparams.augment(wavs, wav_lens)
            frames, frame_lens = self.modules.encoder(wavs, wav_lens)
        else:
            states, frame_lens = batch.features.data, sample_lengths(batch.features)
            frames, frame_lens = self.modules.encoder(states=states, frame_lens=frame_lens)
        return (self.hparams.mask(frames, frame_lens) if stage == TRAIN else frames), frame_lens

    @property
    def trains_encoder(self):
        """Whether this run changes the encoder's own weights"""
        return any(p.requires_grad for p in pretrained_parameters(self.modules["encoder"]))

    def loader(self, dataset, stage):
        """As SSLBrain, of cached states where there is a cache"""
        if self.cache is not None:
            context = self.training_ctx if stage == TRAIN else self.evaluation_ctx
            precision = self.precision if stage == TRAIN else self.eval_precision
            dataset = self.cache.view(dataset, context, precision, self.device, self.shows_progress)
        return super().loader(dataset, stage)

    def check_length(self):
        super().check_length()
        if not self.debug:
            checks.check_encoder_is_trained(self)

    def against_trivial_baseline(self, rows):
        """Of each metric the difference from the trivial baseline, as in evaluation/intervals.py"""
        what, baseline = self.trivial_baseline(rows)
        speakers, seed = [row["spk_id"] for row in rows], self.hparams.seed
        return intervals.differences_from_baseline(
            self.statistics(rows), self.statistics(baseline), what, speakers, seed
        )
