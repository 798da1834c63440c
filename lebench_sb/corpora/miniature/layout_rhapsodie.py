"""UD_French-Rhapsodie: `rhapsodie/fr_rhapsodie-ud-{train,dev,test}.conllu` with the time of each word in its
tenth column, and the recordings that `# sound_url` names, which the real treebank leaves to its users.

Sentences are written as Universal Dependencies writes them, with punctuation and with the two words of "au"
and "du" under one multiword token; the times are those of `layout_orfeo.token_starts`.
"""

from lebench_sb.core.files import write_atomically
from lebench_sb.corpora.miniature.layout_orfeo import token_starts, turns, utterance
from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.texts import Part

__all__ = ["turns", "utterance"]  # of the layout's contract: a recording of several sentences, one a turn

PARTS = {"train": Part(5, 8, 2), "dev": Part(2, 4), "test": Part(3, 10)}
WORDS = (4.0, 0.2)  # few words, often: minutes of speech must be enough to recognise them
SAID = PATTERNS[::4]
SECONDS = (0.5, 120.0)
LETTERS = {"train": "D", "dev": "M", "test": "T"}
CONTRACTED = {"au": ("à", "le"), "aux": ("à", "les"), "du": ("de", "le"), "des": ("de", "les")}


def name(clip):
    return f"Rhap_{LETTERS[clip.split]}{clip.number:04d}"


def path(clip):
    """Path of a recording below the build's folder."""
    return f"rhapsodie/audio/{name(clip)}.wav"


def write(folder, clips, recordings):
    """One file of trees for each split."""
    for split in PARTS:
        blocks = []
        for clip, recording in zip(clips, recordings, strict=True):
            if clip.split == split:
                stretches = zip(clip.sentences, recording.turns, recording.words, strict=True)
                blocks += [_block(clip, number, *found) for number, found in enumerate(stretches, 1)]
        file = folder / f"rhapsodie/fr_rhapsodie-ud-{split}.conllu"
        text = "".join(blocks)
        write_atomically(file, text)


def _block(clip, number, sentence, limits, words):
    """One sentence as lines; limits (start, stop) in seconds, words [(character of its text, seconds)]"""
    tokens, starts = sentence.tokens, token_starts(sentence, limits, words)
    parts = [CONTRACTED.get(t.form.lower(), (t.form,)) if t.upos == "ADP" else (t.form,) for t in tokens]
    first = [1 + sum(map(len, parts[:k])) for k in range(len(parts))]  # number of each token's first word
    lines = [
        f"# sent_id = {name(clip)}-{number}",
        f"# sound_url = http://example.org/rhapsodie/{name(clip)}.wav",
        f"# speaker_id = {clip.speaker.name}",
        f"# text = {sentence.text}",
    ]
    for k, (token, forms) in enumerate(zip(tokens, parts, strict=True)):
        misc = _misc(token, starts[k], starts[k + 1] if k + 1 < len(tokens) else limits[1])
        head = first[token.head - 1] if token.head else 0
        if len(forms) > 1:
            lines.append(_line(f"{first[k]}-{first[k] + 1}", token.form, "_", "_", "_", misc))
            lines.append(_line(first[k], forms[0], "ADP", head, token.relation, "_"))
            lines.append(_line(first[k] + 1, forms[1], "DET", head, "det", "_"))
        else:
            lines.append(_line(first[k], token.form, token.upos, head, token.relation, misc))
    return "\n".join(lines) + "\n\n"


def _misc(token, begin, end):
    glued = ["SpaceAfter=No"] if token.glued else []
    if token.upos == "PUNCT":
        return "|".join(glued) or "_"
    return "|".join([f"AlignBegin={round(1000 * begin)}", f"AlignEnd={round(1000 * end)}", *glued])


def _line(number, form, upos, head, relation, misc):
    return "\t".join(map(str, (number, form, "_", upos, "_", "_", head, relation, "_", misc)))
