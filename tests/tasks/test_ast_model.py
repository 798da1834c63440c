"""The translation model and its search: padding, masks, brute force, PyTorch's layers; subwords."""

import itertools
import json

import pytest
import torch
from torch import nn

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.tasks.decoding.beam import beam_search
from lebench_sb.tasks.heads.translation import (
    DecoderLayer,
    LinearAdapter,
    SpeechTransformer,
    Translator,
    positions,
)
from lebench_sb.text.subwords import Subwords, learn, train

START, END = 1, 2
LENS = torch.tensor([37, 23, 5, 1])


def speech(lens=LENS, size=12):
    torch.manual_seed(1)
    frames = torch.randn(len(lens), int(lens.max()), size, dtype=torch.float64)
    return frames.masked_fill((torch.arange(frames.shape[1]) >= lens[:, None])[..., None], 0.0), lens


def source(kind, input_size=12):
    if kind == "bridge":
        return LinearAdapter(input_size, size=16)
    sizes = {"size": 16, "layers": 2, "heads": 2, "hidden": 24}
    return SpeechTransformer(input_size, project=8, channels=20, **sizes)


def model(kind="transformer", vocabulary=7, seed=0):
    torch.manual_seed(seed)
    made = Translator(source(kind), vocabulary, layers=2, heads=2, hidden=24).double().eval()
    with torch.no_grad():  # as untidy as a trained model: it ends, and says more than the same word again
        for parameter in made.layers.parameters():
            parameter.normal_(std=1.5)
        made.embedding.weight.normal_(std=0.4)
    return made


@pytest.mark.parametrize("kind", ["transformer", "bridge"])
@pytest.mark.parametrize("train_mode", [False, True], ids=["eval", "train"])
def test_padding_changes_nothing(kind, train_mode):
    """States, logits, gradients of a batch are those of its utterances alone, whatever the padding holds"""
    made = Translator(source(kind), 7, layers=2, heads=2, hidden=24, dropout=0.0).double().train(train_mode)
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    frames, lens = speech()
    frames = frames + 9.0 * (torch.arange(frames.shape[1]) >= lens[:, None])[..., None]
    tokens = torch.tensor([[START, 4, 5], [START, 3, 3], [START, 6, END], [START, 5, 4]])
    logits, states, numbers = made(frames, lens, tokens)
    with torch.no_grad():  # PyTorch's encoder takes a faster way then
        torch.testing.assert_close(made(frames, lens, tokens)[0], logits)
    logits.square().sum().backward()
    together = [parameter.grad.clone() for parameter in made.parameters()]
    made.zero_grad()
    for k, count in enumerate(lens.tolist()):
        steps = count if kind == "bridge" else (count + 3) // 4
        alone, own, number = made(frames[k : k + 1, :count], lens[k : k + 1], tokens[k : k + 1])
        assert own.shape[1] == number == numbers[k] == steps
        torch.testing.assert_close(states[k : k + 1, : own.shape[1]], own)
        torch.testing.assert_close(logits[k : k + 1], alone)
        alone.square().sum().backward()
    for grad, parameter in zip(together, made.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


def test_no_token_sees_those_after_it():
    made, (frames, lens) = model(), speech()
    tokens = torch.tensor([[START, 4, 5, 6]] * 4)
    changed = tokens.clone()
    changed[:, 2] = 3
    first, second = made(frames, lens, tokens)[0], made(frames, lens, changed)[0]
    torch.testing.assert_close(first[:, :2], second[:, :2])
    assert not torch.allclose(first[:, 2], second[:, 2])


def test_a_decoder_layer_is_pytorchs():
    torch.manual_seed(0)
    ours = DecoderLayer(16, 4, 24, 0.0).double()
    theirs = nn.TransformerDecoderLayer(16, 4, 24, 0.0, batch_first=True, norm_first=True).double()
    for mine, other in ((ours.own, theirs.self_attn), (ours.source, theirs.multihead_attn)):
        parts = (mine.query, mine.key, mine.value)
        other.in_proj_weight.data = torch.cat([part.weight for part in parts])
        other.in_proj_bias.data = torch.cat([part.bias for part in parts]) + 0.1
        for part in parts:
            part.bias.data += 0.1
        other.out_proj.load_state_dict(mine.output.state_dict())
    theirs.linear1.load_state_dict(ours.feed[0].state_dict())
    theirs.linear2.load_state_dict(ours.feed[3].state_dict())
    states, memory = torch.randn(3, 5, 16).double(), torch.randn(3, 9, 16).double()
    padding = torch.arange(9) >= torch.tensor([9, 4, 1])[:, None]
    causal = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    expected = theirs(states, memory, tgt_mask=causal, memory_key_padding_mask=padding)
    found = ours(states, ours.source.memory(memory), ~padding[:, None, None])
    torch.testing.assert_close(found, expected)


def test_positions():
    places = positions(4, 6, "cpu", first=2)
    assert places.shape == (4, 6) and torch.equal(places[0], positions(3, 6, "cpu")[2])
    torch.testing.assert_close(places[1, 2:4], torch.tensor([3.0 / 10000 ** (2 / 6)] * 2).sin().new_tensor(
        [torch.tensor(3.0 / 10000 ** (2 / 6)).sin(), torch.tensor(3.0 / 10000 ** (2 / 6)).cos()]
    ))  # fmt: skip


def translate(made, frames, lens, **options):
    states, numbers = made.source(frames, lens)
    return made.translate(states, numbers, START, END, **options)


@torch.no_grad()
def log_probability(made, frames, lens, tokens):
    """Of one utterance's text and its end, by the decoder that reads the whole text at once"""
    given = torch.tensor([[START, *tokens]])
    logits = made(frames, lens, given)[0].log_softmax(-1)[0]
    return float(sum(logits[k, token] for k, token in enumerate([*tokens, END])))


@pytest.mark.parametrize("penalty", [1.0, 0.0])
def test_a_beam_that_holds_everything_finds_what_brute_force_finds(penalty):
    """Five tokens (three of them may be said), texts of one to three tokens"""
    frames, lens = speech(torch.tensor([21, 9]))
    for seed in range(4):
        made = model(vocabulary=5, seed=seed)
        found = translate(made, frames, lens, beam=5**4, max_length=4, length_penalty=penalty)
        for k in range(2):
            one = frames[k : k + 1, : lens[k]], lens[k : k + 1]
            scored = {}
            for length in (1, 2, 3):
                for tokens in itertools.product((0, 3, 4), repeat=length):
                    scored[tokens] = log_probability(made, *one, tokens) / (length + 1) ** penalty
            best = max(scored, key=scored.get)
            assert tuple(found[k].tokens) == best
            assert found[k].score == pytest.approx(scored[best])


def greedy(made, frames, lens, limit):
    tokens = []
    while len(tokens) < limit - 1:
        logits = made(frames, lens, torch.tensor([[START, *tokens]]))[0][0, -1]
        logits[START] = -torch.inf
        if not tokens:
            logits[END] = -torch.inf
        if int(logits.argmax()) == END:
            break
        tokens.append(int(logits.argmax()))
    return tokens


@pytest.mark.parametrize("kind", ["transformer", "bridge"])
def test_a_batch_searches_as_its_utterances_alone_and_beam_1_is_greedy(kind):
    frames, lens = speech()
    lengths = set()
    for seed in range(6):
        made = model(kind, vocabulary=9, seed=seed)
        for beam in (1, 2, 5):
            together = translate(made, frames, lens, beam=beam, max_length=12)
            for k, count in enumerate(lens.tolist()):
                one = frames[k : k + 1, :count], lens[k : k + 1]
                (alone,) = translate(made, *one, beam=beam, max_length=12)
                assert alone.tokens == together[k].tokens
                assert alone.score == pytest.approx(together[k].score)
                said = log_probability(made, *one, alone.tokens) / (len(alone.tokens) + 1)
                assert alone.score == pytest.approx(said), "what is kept of past steps is what they were"
                lengths.add(len(alone.tokens))
                if beam == 1:
                    assert alone.tokens == greedy(made, *one, 12)
    assert len(lengths) > 3 and min(lengths) >= 1


def test_a_model_that_says_nan_says_nothing():
    made, (frames, lens) = model(), speech()
    nn.init.constant_(made.norm.weight, float("nan"))
    assert [h.tokens for h in translate(made, frames, lens)] == [[]] * 4
    with pytest.raises(ValueError, match="beam is 0"):
        beam_search(None, START, END, beam=0)


TEXTS = [
    "Hello my friends.",
    "The cat sat on the mat",
    "I like the trees of the garden",
    "¿Qué tal? Élan 3,5 €",
]


def test_subwords_are_as_many_as_the_texts_allow():
    few = Subwords(train(TEXTS, 1000))
    assert 30 < len(few) < 60
    import sentencepiece

    with pytest.raises(RuntimeError, match=f"value <= {len(few)}"):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS), vocab_size=1000, model_type="unigram", character_coverage=1.0,
            model_writer=__import__("io").BytesIO(), num_threads=1, minloglevel=2,
        )  # fmt: skip
    assert [few.decode(few.encode(text)) for text in TEXTS] == TEXTS
    assert few.encode("") == [] and few.decode([]) == ""
    words = [f"{a}{b}{c}" for a in "bdfglm" for b in "aeiou" for c in ("ne", "ra", "to", "vi")]
    many = [" ".join(words[k::7]) for k in range(7)] * 3
    assert len(Subwords(train(many, 40))) == 40
    with pytest.raises(UsageError, match="20 pieces"):
        train(TEXTS, 20)
    with pytest.raises(DataError, match="no text"):
        train(["", " "], 20)


def test_subwords_of_a_batch():
    subwords = Subwords(train(TEXTS, 40))
    given, wanted = subwords.batch(["the mat", ""])
    ids = subwords.encode("the mat")
    assert given[0].tolist() == [subwords.start, *ids] and wanted[0].tolist() == [*ids, subwords.end]
    assert given[1, 0] == subwords.start and wanted[1].tolist() == [subwords.end] + [-100] * len(ids)


def test_subwords_stay_in_the_run_folder(tmp_path):
    first = learn(TEXTS, 1000, tmp_path)
    note = json.loads((tmp_path / "subwords.json").read_text())
    assert note["asked"] == 1000 and note["size"] == len(first) and note["sha256"] == first.sha256
    before = (tmp_path / "subwords.model").stat().st_mtime_ns
    assert learn(TEXTS, 1000, tmp_path).sha256 == first.sha256
    assert (tmp_path / "subwords.model").stat().st_mtime_ns == before
    for texts, size in ((TEXTS[1:], 1000), (TEXTS, 999)):
        with pytest.raises(UsageError, match="new folder"):
            learn(texts, size, tmp_path)
