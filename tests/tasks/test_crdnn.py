"""The CRDNN and its decoder: padding changes nothing, the search agrees with SpeechBrain's and greedy."""

import functools

import pytest
import torch
from speechbrain.decoders.seq2seq import S2SRNNBeamSearcher
from speechbrain.nnet.linear import Linear

from lebench_sb.tasks.asr_attention import cross_entropy, ctc_loss
from lebench_sb.tasks.decoding.beam import beam_search
from lebench_sb.tasks.heads.common import FeedForwardHead, FrameNorm
from lebench_sb.tasks.heads.crdnn import CRDNN, DecoderSteps

SMALL = {
    "rnn_size": 6, "rnn_layers": 2, "dnn_size": 8, "dnn_blocks": 2, "decoder_size": 7, "attention_size": 5,
    "attention_channels": 2, "attention_kernel": 3, "embedding": 4,
}  # fmt: skip
VARIANTS = {
    "ssl": {"rnn": "lstm"},
    "filterbank": {"rnn": "gru", "channels": (3, 4), "time_pooling": 4},
}
START, END = 1, 2
STEPS = functools.partial(DecoderSteps, end=END, temperature=1.0, eos_threshold=1e9, max_attn_shift=1000)


def head_and_frames(variant, seed=0, spread=3.0):
    torch.manual_seed(seed)
    head = CRDNN(12, 50.0, 9, **SMALL, **VARIANTS[variant]).train()
    frames, lens = torch.randn(4, 23, 12), torch.tensor([23, 14, 9, 5])
    for _ in range(3):  # running statistics of BatchNorm that are not those of the start
        head(frames, lens, torch.randint(3, 9, (4, 3)))
    with torch.no_grad():
        head.output.weight *= spread  # decisions less alike
    return head.eval(), frames, lens


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_utterance_in_a_batch_gets_what_it_gets_alone(variant):
    head, frames, lens = head_and_frames(variant)
    given = torch.randint(3, 9, (4, 5))
    garbage = frames.masked_fill(torch.arange(23)[None, :, None] >= lens[:, None, None], 1e3)
    _, counts, ctc, log_probs = head(garbage, lens, given)
    for k, n in enumerate(lens.tolist()):
        _, own, ctc_alone, alone = head(frames[k : k + 1, :n], lens[k : k + 1], given[k : k + 1])
        assert own[0] == counts[k] == -(-n // VARIANTS[variant].get("time_pooling", 1))
        torch.testing.assert_close(ctc[k, : own[0]], ctc_alone[0])
        torch.testing.assert_close(log_probs[k], alone[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_statistics_are_those_of_valid_frames(variant):
    head, frames, lens = head_and_frames(variant)
    norm = head.dnns[0].norm
    results = []
    for value in (0.0, 1e3):
        head.train()
        norm.running_mean.zero_()
        torch.manual_seed(3)
        padded = frames.masked_fill(torch.arange(23)[None, :, None] >= lens[:, None, None], value)
        head(padded, lens, torch.full((4, 2), 3))
        results.append(norm.running_mean.clone())
    torch.testing.assert_close(*results)


def test_the_norm_of_frames_is_batch_norm():
    torch.manual_seed(0)
    ours, theirs = FrameNorm(5), torch.nn.BatchNorm1d(5)
    for size in (7, 2, 30):
        frames = 3 * torch.randn(size, 5) + 1
        torch.testing.assert_close(ours(frames), theirs(frames))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(frames), theirs.eval()(frames))
    assert set(ours.state_dict()) | {"num_batches_tracked"} == set(theirs.state_dict())
    before = ours.running_var.clone()
    assert ours.train()(frames[:1]).isfinite().all() and torch.equal(before, ours.running_var)


def test_the_frame_wise_head_sees_no_padding():
    torch.manual_seed(0)
    head = FeedForwardHead(6, 50.0, 5, hidden=8)
    frames, lens = torch.randn(3, 11, 6), torch.tensor([11, 6, 2])
    garbage = frames.masked_fill(torch.arange(11)[None, :, None] >= lens[:, None, None], 1e3)
    means = []
    for batch in (frames, garbage):
        for block in head.blocks:
            block.norm.running_mean.zero_()
        torch.manual_seed(1)
        head.train()(batch, lens)
        means.append(head.blocks[2].norm.running_mean.clone())
    torch.testing.assert_close(*means)
    together, same = head.eval()(garbage, lens)
    assert same is lens
    for k, n in enumerate(lens.tolist()):
        torch.testing.assert_close(together[k, :n], head(frames[k : k + 1, :n], lens[k : k + 1])[0][0])


def decode(head, states, lens, beam, limits, **options):
    steps = STEPS(head=head, states=states, lens=lens, beam=beam, limits=limits, **options)
    return beam_search(steps, START, END, beam, int(limits.max()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beam", [1, 4])
def test_decoding_in_a_batch_is_decoding_alone(variant, beam):
    for seed in range(4):
        head, frames, lens = head_and_frames(variant, seed)
        with torch.no_grad():
            states, counts = head.states(frames, lens)
            limits = counts + 2
            options = {"eos_threshold": 1.5, "max_attn_shift": 2, "temperature": 1.3}
            together = decode(head, states, counts, beam, limits, **options)
            for k, n in enumerate(counts.tolist()):
                part = slice(k, k + 1)
                alone = decode(head, states[part, :n], counts[part], beam, limits[part], **options)[0]
                assert alone.tokens == together[k].tokens
                assert alone.score == pytest.approx(together[k].score, abs=1e-4)
                assert len(alone.tokens) < limits[k]


def test_beam_one_takes_the_best_token_each_time():
    head, frames, lens = head_and_frames("ssl")
    with torch.no_grad():
        states, counts = head.states(frames[:1], lens[:1])
        found = decode(head, states, counts, 1, torch.tensor([12]))[0].tokens
        given = [START]
        while len(given) < 12:  # the whole text again for each token, through the path of training
            log_probs = head(frames[:1], lens[:1], torch.tensor([given]))[3][0, -1]
            log_probs[START] = -torch.inf
            if len(given) == 1:
                log_probs[END] = -torch.inf
            if int(log_probs.argmax()) == END:
                break
            given.append(int(log_probs.argmax()))
    assert found == given[1:]


@pytest.mark.parametrize("seed", range(5))
def test_speechbrain_searches_the_same_on_one_utterance(seed):
    head, frames, lens = head_and_frames("ssl", seed)
    output = Linear(9, input_size=7)
    output.w = head.output
    searcher = S2SRNNBeamSearcher(
        head.embedding, head.decoder, output, bos_index=START, eos_index=END, min_decode_ratio=1.5 / 23,
        max_decode_ratio=1.0, beam_size=6, temperature=1.3, using_eos_threshold=True, eos_threshold=1.5,
        using_max_attn_shift=True, max_attn_shift=100, length_normalization=True,
    )  # fmt: skip
    with torch.no_grad():
        head.output.bias[END] += 2.0  # ends within the limit, where both searches stop by their own rules
        head.output.bias[START] -= 1e4
        states, counts = head.states(frames[:1], lens[:1])
        theirs = searcher(states, torch.ones(1))[0][0]
        options = {"eos_threshold": 1.5, "max_attn_shift": 100, "temperature": 1.3}
        ours = decode(head, states, counts, 6, counts, **options)[0].tokens
    assert ours == [int(t) for t in theirs] and ours


def test_losses_of_an_utterance_do_not_depend_on_its_neighbours():
    head, frames, lens = head_and_frames("ssl")
    wanted = torch.tensor([[3, 3, 5, 2], [4, 2, -100, -100], [6, 7, 2, -100], [8, 2, -100, -100]])
    given = torch.tensor([[1, 3, 3, 5], [1, 4, 2, 2], [1, 6, 7, 2], [1, 8, 2, 2]])
    _, counts, ctc, log_probs = head(frames, lens, given)
    entropy, joint = cross_entropy(log_probs, wanted, 0.1), ctc_loss(ctc, counts, wanted, END)
    for k in range(4):
        size = int((wanted[k] != -100).sum())
        part = slice(k, k + 1)
        _, own, ctc_alone, alone = head(frames[part, : lens[k]], lens[part], given[part, :size])
        reference = torch.nn.functional.cross_entropy(alone[0], wanted[k, :size], label_smoothing=0.1)
        torch.testing.assert_close(entropy[k], reference)
        tokens = wanted[k, : size - 1]
        path = torch.nn.functional.ctc_loss(ctc_alone[0], tokens, own[0], torch.tensor(size - 1), blank=9)
        torch.testing.assert_close(joint[k], path)
