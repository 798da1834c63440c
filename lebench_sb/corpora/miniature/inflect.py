"""Regular inflection in French, English, Spanish and Portuguese, as far as the words of `lexicon.py` need
it."""

FR_PLURALS = {"pull": "pulls", "bleu": "bleus", "festival": "festivals"}
EN_PLURALS = {
    "mouse": "mice",
    "child": "children",
    "knife": "knives",
    "shelf": "shelves",
    "sheep": "sheep",
    "fish": "fish",
    "scarf": "scarves",
    "headscarf": "headscarves",
    "wolf": "wolves",
    "person": "people",
    "pair of trousers": "pairs of trousers",
    "barracks": "barracks",
}
ES_PLURALS = {"jersey": "jerséis", "paraguas": "paraguas", "joven": "jóvenes"}
PT_PLURALS = {"lápis": "lápis", "pão": "pães", "mão": "mãos", "órgão": "órgãos", "tênis": "tênis"}
ACCENTED_END = {"án": "an", "én": "en", "ín": "in", "ón": "on", "ún": "un", "és": "es"}


def fr_plural(word):
    if word in FR_PLURALS:
        return FR_PLURALS[word]
    if word[-1] in "sxz":
        return word
    if word.endswith("al"):
        return word[:-2] + "aux"
    return word + ("x" if word.endswith(("eau", "eu", "au")) else "s")


def fr_feminine(adjective):
    return adjective if adjective.endswith("e") else adjective + "e"


def en_plural(words):
    if words in EN_PLURALS:
        return EN_PLURALS[words]
    head, _, word = words.rpartition(" ")
    if word in EN_PLURALS:
        word = EN_PLURALS[word]
    elif word.endswith(("s", "sh", "ch", "x")):
        word += "es"
    elif word.endswith("y") and word[-2] not in "aeiou":
        word = word[:-1] + "ies"
    else:
        word += "s"
    return f"{head} {word}".strip()


def en_third(verb):
    """`look for` -> `looks for`: the first word carries the ending, as in the next five functions."""
    first, _, rest = verb.partition(" ")
    if first == "have":
        first = "has"
    elif first.endswith("y") and first[-2] not in "aeiou":
        first = first[:-1] + "ies"
    else:
        first += "es" if first.endswith(("s", "sh", "ch", "x", "o")) else "s"
    return f"{first} {rest}".strip()


def es_plural(words):
    if words in ES_PLURALS:
        return ES_PLURALS[words]
    first, _, rest = words.partition(" ")
    if first.endswith("z"):
        first = first[:-1] + "ces"
    elif first[-2:] in ACCENTED_END:
        first = first[:-2] + ACCENTED_END[first[-2:]] + "es"
    else:
        first += "s" if first[-1] in "aeiouáéó" else "es"
    return f"{first} {rest}".strip()


def pt_plural(words):
    if words in PT_PLURALS:
        return PT_PLURALS[words]
    first, hyphen, rest = words.partition("-")
    if hyphen:  # guarda-chuva: the second noun carries the plural
        return f"{first}-{pt_plural(rest)}"
    first, _, rest = words.partition(" ")
    if first.endswith("ão"):
        first = first[:-2] + "ões"
    elif first.endswith("m"):
        first = first[:-1] + "ns"
    elif first[-2:] in ("al", "el", "ol", "ul"):
        first = first[:-1].replace("e", "é") + "is" if first.endswith("el") else first[:-1] + "is"
    elif first.endswith("il"):
        first = first[:-2] + "eis"
    else:
        first += "es" if first[-1] in "rzs" else "s"
    return f"{first} {rest}".strip()


def es_feminine(adjective):
    if adjective.endswith("dor"):
        return adjective + "a"
    return adjective[:-1] + "a" if adjective.endswith("o") else adjective


def pt_feminine(adjective):
    return adjective[:-1] + "a" if adjective.endswith("o") else adjective


def fr_verb(infinitive, present=None, participle=None):
    """Forms by name: inf, pres (3sg), pp, nous (1pl present), ils (3pl present), imp (3sg imperfect)."""
    stem = infinitive[:-2]
    present = present or stem + "e"
    participle = participle or stem + "é"
    if infinitive.endswith("er"):
        soft = stem + "e" if stem.endswith("g") else stem[:-1] + "ç" if stem.endswith("c") else stem
        return dict(
            inf=infinitive,
            pres=present,
            pp=participle,
            nous=soft + "ons",
            ils=present + "nt",
            imp=soft + "ait",
        )
    return dict(inf=infinitive, pres=present, pp=participle)


def en_verb(base, past):
    return dict(
        inf=base, pres=en_third(base), pp=past, nous=base, ils=base, imp=f"used to {base}", nouspp=past
    )


def _romance(verb, present, past, past_of, imperfect_of, plural_of):
    """Forms named as in fr_verb; `past_of` by theme vowel, and for the 1pl past of verbs in -er (`nous`)."""
    theme = verb[-2].replace("í", "i")
    present = present or verb[:-2] + {"a": "a", "e": "e", "i": "e"}[theme]
    we = {"a": "amos", "e": "emos", "i": "imos"}
    return {
        "inf": verb,
        "pres": present,
        "pp": past or verb[:-2] + past_of[theme],
        "imp": verb[:-2] + imperfect_of[theme],
        "ils": plural_of(present),
        "nous": verb[:-2] + we[theme],
        "nouspp": verb[:-2] + (we | {"e": past_of["nous"]})[theme],
    }


def es_verb(infinitive, present=None, past=None):
    past_of = {"a": "ó", "e": "ió", "i": "ió", "nous": "imos"}
    return _romance(infinitive, present, past, past_of, {"a": "aba", "e": "ía", "i": "ía"}, lambda p: p + "n")


def pt_verb(infinitive, present=None, past=None):
    past_of = {"a": "ou", "e": "eu", "i": "iu", "nous": "emos"}
    return _romance(
        infinitive,
        present,
        past,
        past_of,
        {"a": "ava", "e": "ia", "i": "ia"},
        lambda p: p + ("em" if p[-1] == "z" else "m"),
    )
