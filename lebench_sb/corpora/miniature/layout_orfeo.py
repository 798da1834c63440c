"""CEFC-Orféo: `orfeo/{train,dev,test}/NAME.orfeo` and NAME.wav, a recording of several sentences by one
speaker. Each line of a sentence has the ten columns of CoNLL-U, begin and end in seconds, and the speaker.
Words are in lower case and punctuation is left out, as in transcripts of speech; tags and relations are
Universal Dependencies, where Orféo has its own.

eSpeak NG tells when a group of words (an elided word and the next, say) begins. A word inside a group, and
every word of Pico, begins where its letters' share of the stretch between two known times says.
"""

from lebench_sb.core.files import write_atomically
from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.texts import Part, Turn, estimated_seconds

PARTS = {"train": Part(10, 10, 2), "dev": Part(2, 4), "test": Part(3, 10)}
WORDS = (4.0, 0.2)  # few words, often: minutes of speech must be enough to recognise them
SAID = PATTERNS[::4]
SECONDS = (0.5, 120.0)
LONG_FORM = 20.0  # seconds, estimated, after which a recording ends: a speaker of test has one


def utterance(source, speaker, rng):
    """Sentences until the recording is long enough"""
    group = [next(source)]
    while estimated_seconds(speaker, group) < LONG_FORM:
        group.append(next(source))
    return tuple(group)


def name(clip):
    return f"mini-{clip.split}-{clip.number:04d}"


def path(clip):
    """Path of a recording below the build's folder."""
    return f"orfeo/{clip.split}/{name(clip)}.wav"


def turns(clip):
    """A sentence a turn"""
    return [Turn(sentence.text) for sentence in clip.sentences]


def write(folder, clips, recordings):
    """One NAME.orfeo for each of `clips`, spoken as `recordings` says."""
    for clip, recording in zip(clips, recordings, strict=True):
        stretches = zip(clip.sentences, recording.turns, recording.words, strict=True)
        blocks = [_block(f"cefc-{name(clip)}-{number}", clip.speaker.name, *stretch)
                  for number, stretch in enumerate(stretches, 1)]  # fmt: skip
        file = folder / f"orfeo/{clip.split}/{name(clip)}.orfeo"
        text = "\n".join(blocks)
        write_atomically(file, text)


def _block(sent_id, speaker, sentence, limits, words):
    """One sentence as lines; limits (start, stop) in seconds, words [(character of its text, seconds)]"""
    numbers = [n for n, token in enumerate(sentence.tokens, 1) if token.upos != "PUNCT"]
    new = {0: 0} | {n: k for k, n in enumerate(numbers, 1)}
    starts = token_starts(sentence, limits, words)
    forms = [sentence.tokens[n - 1].form.lower() for n in numbers]
    lines = [f"# sent_id = {sent_id}", f"# text = {' '.join(forms)}"]
    for k, n in enumerate(numbers):
        token = sentence.tokens[n - 1]
        begin, end = starts[n - 1], starts[numbers[k + 1] - 1] if k + 1 < len(numbers) else limits[1]
        head, times = str(new[token.head]), [f"{begin:.3f}", f"{end:.3f}"]
        columns = [str(k + 1), forms[k], "_", token.upos, token.upos, "_", head, token.relation]
        lines.append("\t".join([*columns, head, token.relation, *times, speaker]))
    return "\n".join(lines) + "\n"


def token_starts(sentence, limits, words):
    """Seconds at which each token begins: of `words` where one begins there, else by its share of letters"""
    anchors = [(0, limits[0]), *sorted(words), (len(sentence.text), limits[1])]
    places, at = [], 0
    for token in sentence.tokens:
        places.append(at)
        at += len(token.form) + (not token.glued)
    starts = []
    for place in places:
        before = max((anchor for anchor in anchors if anchor[0] <= place), key=lambda a: (a[0], a[1]))
        after = min((anchor for anchor in anchors if anchor[0] > place), default=anchors[-1])
        width = after[0] - before[0]
        share = (place - before[0]) / width if width else 0.0
        starts.append(before[1] + share * (after[1] - before[1]))
    return [max(starts[: k + 1]) for k in range(len(starts))]
