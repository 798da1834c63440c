"""What all corpora do alike with texts: unreadable characters, what the normaliser changed, genders."""

import unicodedata
from collections import Counter

from lebench_sb.text.normaliser import UnreadableText
from lebench_sb.text.normaliser import normaliser as text_normaliser

ADVICE = "spell them out or remove them"
EMPTY = "empty transcript"
GENDERS = {
    "F": "f female feminin féminin feminine femme fille woman girl w female_feminine",
    "M": "m male masculin masculine homme garçon garcon man boy h male_masculine",
    # known to be neither, not told, or not known: no group of the statistics by gender
    "U": "u x unknown inconnu inconnue other autre na n/a nan none null - ? transgender non-binary "
    "non_binary nonbinary intersex do_not_wish_to_say prefer_not_to_say",
}
READ = {word: letter for letter, words in GENDERS.items() for word in words.split()} | {"": "U"}


def gender(written):
    """F, M or U of a gender as corpora and people write it (`female_feminine`, `homme`, `M`, ``); None for
    what is no gender, which is the corpus's to report"""
    return READ.get("_".join(unicodedata.normalize("NFC", written).lower().split()))


def readable(texts, normaliser, left_out, problems, counted=False):
    """[(where, text), ...] of one split -> [normalised text, None for one to leave out], in order.

    normaliser: name; left_out: the split's LeftOut, which receives counts of what is left out and of the
    characters that the normaliser changed; problems: receives what must stop the preparation, for the caller
    to raise; where: the id or line, for people.

    One rule for texts with characters that the normaliser cannot read: in train they are left out and
    counted, up to 1 % of the texts; more, or any in valid and test, are problems that name the characters.
    counted: also valid and test leave them out, counted: for corpora whose published protocol drops
    sentences; results.json then tells how many the test set lost.
    """
    normalise, texts_read, unread = text_normaliser(normaliser), [], []
    for where, text in texts:
        try:
            texts_read.append(normalise(text))
        except UnreadableText as error:
            texts_read.append(None)
            unread.append((where, error.characters))
        else:
            left_out.changed.update(changed_characters(text, texts_read[-1]))
    kind = f"characters {normaliser} cannot read"
    faults = [(kind, f"{where} {' '.join(map(repr, characters))}") for where, characters in unread]
    if counted and left_out.split != "train":
        left_out.leave_out(problems.where, faults)
    else:
        stopping = type(problems)(problems.where)
        if not left_out.spare(faults, len(texts_read), stopping):
            for _, item in faults:
                problems.add(f"{kind} ({ADVICE})", item)
    return texts_read


def changed_characters(text, normal):
    """Counter of the characters of `text` that are not in its normalised form, letter case and white space
    apart"""
    if text == normal:
        return Counter()
    before, after = (
        Counter("".join(unicodedata.normalize("NFC", each).lower().split())) for each in (text, normal)
    )
    return before - after
