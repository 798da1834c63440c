"""The phrases a pattern can ask for: `phrase(spec, draw, other)` -> Phrase, for the specs listed in `SLOTS`.

np.CLASS un.CLASS le.CLASS les.CLASS    noun phrase with any, or this, determiner; CLASS of NOUNS
verb.CLASS.FORM                         a verb that takes CLASS as object; FORM of inflect.fr_verb
adj.CLASS                               adjective that agrees with `other`
count.UNIT                              `trois nuits`; anything else is a function of this module
"""

from functools import cache
from itertools import accumulate

from num2words import num2words

from lebench_sb.corpora.miniature import inflect
from lebench_sb.corpora.miniature import lexicon as lx
from lebench_sb.corpora.miniature.grammar import LANGUAGES, Phrase, Word


class Draw:
    """Seeded draws of words: with probability `rare` any word of a list, else with probability
    ~ 1 / (rank + 2) ** exponent. So a few words are common, as in any language, and the tail stays alive.
    """

    def __init__(self, rng, exponent=1.0, rare=0.0):
        self.rng, self.exponent, self.rare = rng, exponent, rare

    def zipf(self, items):
        if self.chance(self.rare):
            return self.even(items)
        return self.rng.choices(items, cum_weights=_cumulative(len(items), self.exponent))[0]

    def even(self, items):
        return items[int(self.rng.random() * len(items))]

    def chance(self, probability):
        return self.rng.random() < probability

    def integer(self, low, high):
        """low..high, small numbers more often."""
        return self.zipf(range(low, high + 1))


@cache
def _cumulative(count, exponent):
    return list(accumulate((rank + 2) ** -exponent for rank in range(1, count + 1)))


@cache
def table(text):
    """Lines of lexicon.py -> list of lists of fields, `_` read as a space."""
    return [[field.replace("_", " ") for field in line.split(";")] for line in text.splitlines()]


NOUNS = {
    "thing": (lx.THINGS, lx.COLOURS + "\n" + lx.QUALITIES),
    "cloth": (lx.CLOTHES, lx.COLOURS + "\n" + lx.QUALITIES),
    "food": (lx.FOODS, lx.TASTES),
    "place": (lx.PLACES, lx.SITES),
    "animal": (lx.ANIMALS, lx.COLOURS),
    "equip": (lx.EQUIPMENT, lx.QUALITIES),
    "disease": (lx.DISEASES, lx.QUALITIES),
    "subject": (lx.SUBJECTS, lx.SITES),
    "feeling": (lx.FEELINGS, lx.QUALITIES),
    "woe": (lx.WOES, lx.QUALITIES),
    "room": ("chambre:f;room;habitación:f;quarto:m", lx.ROOM_KINDS),
}
ADJECTIVES = {
    "mood": lx.MOODS,
    "colour": lx.COLOURS,
    "quality": lx.QUALITIES,
    "taste": lx.TASTES,
    "site": lx.SITES,
    "room": lx.ROOM_KINDS,
}
VERBS = {
    "thing": lx.THING_VERBS,
    "cloth": lx.THING_VERBS,
    "food": lx.FOOD_VERBS,
    "person": lx.PERSON_VERBS,
    "place": lx.PLACE_VERBS,
    "animal": lx.ANIMAL_VERBS,
    "act": lx.ACTIONS,
}
# determiner -> per language (masculine, feminine); the plural ones are in PLURAL
DETERMINERS = {
    "un": {"fr": ("un", "une"), "en": "a", "es": ("un", "una"), "pt": ("um", "uma")},
    "le": {"fr": ("le", "la"), "en": "the", "es": ("el", "la"), "pt": ("o", "a")},
    "mon": {"fr": ("mon", "ma"), "en": "my", "es": ("mi", "mi"), "pt": ("meu", "minha")},
    "ce": {"fr": ("ce", "cette"), "en": "this", "es": ("este", "esta"), "pt": ("este", "esta")},
    "notre": {"fr": ("notre", "notre"), "en": "our", "es": ("nuestro", "nuestra"), "pt": ("nosso", "nossa")},
    "des": {"fr": ("des", "des"), "en": "some", "es": ("unos", "unas"), "pt": ("uns", "umas")},
    "les": {"fr": ("les", "les"), "en": "the", "es": ("los", "las"), "pt": ("os", "as")},
    "mes": {"fr": ("mes", "mes"), "en": "my", "es": ("mis", "mis"), "pt": ("meus", "minhas")},
    "ces": {"fr": ("ces", "ces"), "en": "these", "es": ("estos", "estas"), "pt": ("estes", "estas")},
}
PLURAL = {"des", "les", "mes", "ces", "count"}
UNITS = {
    "nuit": "nuit:f;night;noche:f;noite:f",
    "personne": "personne:f;person;persona:f;pessoa:f",
    "euro": "euro:m;euro;euro:m;euro:m",
    "enfant": "enfant:m;child;niño:m;criança:f",
    "km": "kilomètre:m;kilometre;kilómetro:m;quilômetro:m",
    "an": "an:m;year;año:m;ano:m",
    "minute": "minute:f;minute;minuto:m;minuto:m",
    "jour": "jour:m;day;día:m;dia:m",
    "chambre": "chambre:f;room;habitación:f;quarto:m",
    "gramme": "gramme:m;gram;gramo:m;grama:m",
    "degré": "degré:m;degree;grado:m;grau:m",
    "semaine": "semaine:f;week;semana:f;semana:f",
}
COUNTS = {
    "nuit": (2, 15),
    "personne": (2, 12),
    "euro": (20, 250),
    "enfant": (2, 8),
    "km": (2, 99),
    "an": (18, 92),
    "minute": (2, 59),
    "jour": (2, 30),
    "chambre": (2, 9),
    "gramme": (100, 900),
    "degré": (2, 35),
    "semaine": (2, 12),
}


def phrase(spec, draw, other=None):
    """The phrase `spec` asks for; ValueError when nothing of that name exists."""
    kind, _, rest = spec.partition(".")
    if kind == "verb":
        return verb(*rest.split("."), draw)
    if kind == "adj":
        return adjective(draw.zipf(table(ADJECTIVES[rest])), other)
    if kind == "count":
        return count(rest, draw)
    if rest in NOUNS and (kind in DETERMINERS or kind == "np"):
        return noun_phrase(rest, None if kind == "np" else kind, draw)
    if spec not in SLOTS:
        raise ValueError(
            f"No slot {spec!r}; there are {', '.join(sorted(SLOTS))}, np.*, verb.*.*, adj.* and count.*."
        )
    return SLOTS[spec](draw)


def _fields(entry):
    """`chat:m;cat;gato:m;gato:m` as fields -> forms and genders by language."""
    fr, en, es, pt = entry
    pairs = {"fr": fr, "es": es, "pt": pt}
    forms = {language: text.partition(":")[0] for language, text in pairs.items()} | {"en": en}
    genders = {language: text.partition(":")[2] for language, text in pairs.items()}
    return forms, genders


def _pluralise(forms):
    rules = {
        "fr": inflect.fr_plural,
        "en": inflect.en_plural,
        "es": inflect.es_plural,
        "pt": inflect.pt_plural,
    }
    return {language: rules[language](form) for language, form in forms.items()}


def _determiner(name, language, gender):
    if language == "en":
        return DETERMINERS[name]["en"]
    # el arpa: feminine nouns in stressed a- take the masculine article
    feminine = gender == "f" or (gender == "fe" and name not in ("un", "le"))
    return DETERMINERS[name][language][feminine]


def noun_phrase(class_name, determiner, draw):
    nouns, adjectives = NOUNS[class_name]
    forms, genders = _fields(draw.zipf(table(nouns)))
    determiner = determiner or draw.even(("un", "le", "le", "mon", "ce", "notre", "des", "les", "mes", "ces"))
    plural = determiner in PLURAL
    forms = _pluralise(forms) if plural else forms
    noun = Word(forms["fr"], "NOUN")
    article = Word(_determiner(determiner, "fr", genders["fr"]), "DET", "det", noun)
    result = Phrase([article, noun], {}, genders, plural)
    extra = (
        adjective(draw.zipf(table(adjectives)), result)
        if draw.chance(0.3) and class_name not in ("feeling", "woe")
        else None
    )
    if extra:
        extra.root.relation, extra.root.head = "amod", noun
        result.words += extra.words
    for language in LANGUAGES:
        parts = [_determiner(determiner, language, genders.get(language)), forms[language]]
        if extra:
            parts.insert(1 if language == "en" else 2, extra.translations[language])
        result.translations[language] = " ".join(parts)
    return result


def adjective(entry, other):
    """Adjective that agrees with the Phrase `other` in each language."""
    fr, en, es, pt = entry
    masculine, _, feminine = fr.partition(" ")
    feminine = feminine or inflect.fr_feminine(masculine)
    gender = lambda language: "m" if other is None else other.genders.get(language, "m")  # noqa: E731
    forms = {"fr": feminine if gender("fr") == "f" else masculine, "en": en}
    forms["es"] = inflect.es_feminine(es) if gender("es") in ("f", "fe") else es
    forms["pt"] = inflect.pt_feminine(pt) if gender("pt") == "f" else pt
    if other is not None and other.plural:
        forms = _pluralise(forms) | {"en": en}
    return Phrase([Word(forms["fr"], "ADJ")], forms)


def verb(class_name, form, draw):
    entries = table(VERBS[class_name])
    while True:
        fr, en, es, pt = draw.zipf(entries)
        fr = inflect.fr_verb(*fr.split(" "))
        if form in ("nous", "ils", "imp") and form not in fr:
            continue  # only verbs in -er have these forms here
        forms = {
            "en": _english(en)[form],
            "es": inflect.es_verb(*es.split(" "))[form],
            "pt": inflect.pt_verb(*pt.split(" "))[form],
        }
        return Phrase([Word(fr["pp" if form == "nouspp" else form], "VERB")], forms)


def _english(field):
    """`look for looked for`: the two halves are base and past."""
    words = field.split(" ")
    return inflect.en_verb(" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :]))


def _in_words(number, gender):
    """A number in the four languages, agreeing with a noun of these genders."""
    fr, es, pt = num2words(number, lang="fr"), num2words(number, lang="es"), num2words(number, lang="pt_BR")
    if gender["fr"] == "f" and fr.endswith("un"):
        fr += "e"
    if es.endswith("uno"):
        es = es[:-1] + "a" if gender["es"] == "f" else "veintiún" if es == "veintiuno" else es[:-1]
    if gender["es"] == "f":
        es = es.replace("cientos", "cientas")
    if gender["pt"] == "f":
        ending = {"um": "uma", "dois": "duas"}
        pt = " ".join(ending.get(word, word.replace("entos", "entas")) for word in pt.split())
    return {"fr": fr, "en": num2words(number, lang="en"), "es": es, "pt": pt}


def _numeral(text, head):
    """French number words before `head`: the first is its nummod, the others hang flat from the first."""
    first, *others = [Word(form, "NUM") for form in text.split()]
    first.relation, first.head = "nummod", head
    for word in others:
        word.relation, word.head = "flat", first
    return [first, *others]


def count(unit, draw):
    forms, genders = _fields(table(UNITS[unit])[0])
    number = draw.integer(*COUNTS[unit])
    number -= number % 10 if unit == "gramme" else 0
    numbers, forms = _in_words(number, genders), _pluralise(forms)
    noun = Word(forms["fr"], "NOUN")
    translations = {language: f"{numbers[language]} {forms[language]}" for language in LANGUAGES}
    return Phrase([*_numeral(numbers["fr"], noun), noun], translations, genders, True)


def _flat(forms, upos, relation="flat"):
    """Words of which the first is the root."""
    first, *others = [Word(form, upos) for form in forms]
    for word in others:
        word.relation, word.head = relation, first
    return [first, *others]


def _same(text):
    return dict.fromkeys(LANGUAGES, text)


def _genders(gender):
    return dict.fromkeys(("fr", "es", "pt"), gender)


def first_name(draw):
    gender = draw.even("fm")
    name = draw.zipf(lx.FIRST_NAMES_F if gender == "f" else lx.FIRST_NAMES_M)
    return Phrase([Word(name, "PROPN")], _same(name), _genders(gender))


def full_name(draw):
    first = first_name(draw)
    name = f"{first.words[0].form} {draw.zipf(lx.LAST_NAMES)}"
    return Phrase(_flat(name.split(), "PROPN", "flat:name"), _same(name), first.genders)


def titled_name(draw):
    name, gender = draw.zipf(lx.LAST_NAMES), draw.even("fm")
    fr, en, es, pt = (
        ("madame", "Mrs", "la señora", "a senhora")
        if gender == "f"
        else ("monsieur", "Mr", "el señor", "o senhor")
    )
    title = Word(fr, "NOUN")
    words = [title, Word(name, "PROPN", "flat:name", title)]
    return Phrase(words, {"en": f"{en} {name}", "es": f"{es} {name}", "pt": f"{pt} {name}"}, _genders(gender))


def worker(draw):
    """`la boulangère`, `mon cousin`."""
    fr, en, es, pt = draw.zipf(table(lx.PEOPLE))
    feminine, determiner = draw.chance(0.5), draw.even(("le", "le", "mon", "ce", "notre", "un"))
    pair = [text.split(" ")[feminine] for text in (fr, es, pt)]
    genders = _genders("f" if feminine else "m")
    noun = Word(pair[0], "NOUN")
    article = Word(_determiner(determiner, "fr", genders["fr"]), "DET", "det", noun)
    forms = {"en": en, "es": pair[1], "pt": pair[2]}
    translations = {
        language: f"{_determiner(determiner, language, genders['fr'])} {form}"
        for language, form in forms.items()
    }
    return Phrase([article, noun], translations, genders)


def job(draw):
    """A trade without article: `infirmière`; agreement is free."""
    fr, en, es, pt = draw.zipf(table(lx.PEOPLE))
    feminine = draw.chance(0.5)
    fr, es, pt = (text.split(" ")[feminine] for text in (fr, es, pt))
    return Phrase(
        [Word(fr, "NOUN")], {"en": f"a {en}", "es": es, "pt": pt}, _genders("f" if feminine else "m")
    )


def person(draw):
    return draw.even((first_name, first_name, worker, worker, titled_name))(draw)


def city(draw):
    name = draw.zipf(lx.CITIES)
    names = {entry[0]: entry[1:] for entry in table(lx.CITY_NAMES)}
    return Phrase([Word(name, "PROPN")], dict(zip(LANGUAGES, names.get(name, [name] * 3), strict=True)))


def country(draw):
    fr, en, es, pt = draw.zipf(table(lx.COUNTRIES))
    preposition, name = fr.split(" ")
    head = Word(name, "PROPN")
    return Phrase([Word(preposition, "ADP", "case", head), head], {"en": en, "es": es, "pt": pt})


def _named(article, first, en, es, pt, names):
    def slot(draw):
        name = draw.zipf(names)
        head = Word(first, "NOUN")
        before = [Word(article, "DET", "det", head)] if article else []
        translations = {
            language: text.format(name) for language, text in zip(LANGUAGES, (en, es, pt), strict=True)
        }
        return Phrase([*before, head, Word(name, "PROPN", "flat:name", head)], translations)

    return slot


TAGS = {
    "ce": "DET",
    "cet": "DET",
    "cette": "DET",
    "à": "ADP",
    "le": "DET",
    "par": "ADP",
    "en": "ADP",
    "tout": "ADV",
    "hier": "ADV",
    "demain": "ADV",
}


def _expression(text, upos):
    """A slot of fixed expressions whose last word is the root."""

    def slot(draw):
        fr, en, es, pt = draw.zipf(table(text))
        forms = fr.replace("l'heure", "le heure").split(" ")
        tags = [TAGS.get(form, upos) for form in forms[:-1]] + [upos if len(forms) == 1 else "NOUN"]
        words = [Word(form, tag) for form, tag in zip(forms, tags, strict=True)]
        relations = {"DET": "det", "ADP": "case", "ADV": "advmod"}
        for word in words[:-1]:
            word.relation, word.head = relations[word.upos], words[-1]
        return Phrase(words, {"en": en, "es": es, "pt": pt})

    return slot


def _plain(text, upos):
    def slot(draw):
        fr, en, es, pt = draw.zipf(table(text))
        return Phrase([Word(fr, upos)], {"en": en, "es": es, "pt": pt})

    return slot


def date(draw):
    """`le douze mars`: the month is the head."""
    day, (month, en, es, pt) = draw.even(range(1, 32 - 3)), draw.even(table(lx.MONTHS))
    head = Word(month, "NOUN")
    numbers = {code: num2words(day, lang=code if code != "pt" else "pt_BR") for code in ("fr", "es", "pt")}
    if day == 1:
        numbers = {"fr": "premier", "es": "primero", "pt": "primeiro"}
    words = [Word("le", "DET", "det", head), *_numeral(numbers["fr"], head), head]
    if day == 1:
        words[1].upos, words[1].relation = "ADJ", "amod"
    ordinal = num2words(day, lang="en", to="ordinal")
    es_number = numbers["es"]
    return Phrase(
        words,
        {
            "en": f"the {ordinal} of {en}",
            "es": f"el {es_number} de {es}",
            "pt": f"o dia {numbers['pt']} de {pt}",
        },
    )


def hour(draw):
    """`huit heures et quart`; the translations carry the article of es and pt."""
    number = draw.integer(2, 11)
    spoken = _in_words(number, _genders("f"))
    head = Word("heures", "NOUN")
    words = [*_numeral(spoken["fr"], head), head]
    tail = draw.even(("", "", "quart", "demie", "dix", "vingt", "trente", "quarante"))
    if tail in ("quart", "demie"):
        end = Word(tail, "NOUN", "conj", head)
        words += [Word("et", "CCONJ", "cc", end), end]
    elif tail:
        words.append(Word(tail, "NUM", "nummod", head))
    minutes = {"quart": (15, "quarter past", "cuarto", "quinze"), "demie": (30, "half past", "media", "meia")}
    en, es, pt = f"{spoken['en']} o'clock", f"las {spoken['es']}", f"as {spoken['pt']} horas"
    if tail in minutes:
        _, past, cuarto, quinze = minutes[tail]
        en, es, pt = f"{past} {spoken['en']}", f"{es} y {cuarto}", f"as {spoken['pt']} e {quinze}"
    elif tail:
        value = {"dix": 10, "vingt": 20, "trente": 30, "quarante": 40}[tail]
        en, es = f"{spoken['en']} {num2words(value)}", f"{es} y {num2words(value, lang='es')}"
        pt = f"as {spoken['pt']} e {num2words(value, lang='pt_BR')}"
    return Phrase(words, {"en": en, "es": es, "pt": pt})


def phone(draw):
    """Five pairs: `zéro six vingt-deux ...`."""
    pairs = [draw.even((1, 2, 3, 4, 5, 6, 7))] + [draw.integer(10, 99) for _ in range(3)]
    texts = {
        language: " ".join(num2words(pair, lang=language) for pair in pairs)
        for language in ("fr", "en", "es")
    }
    texts["pt"] = " ".join(num2words(pair, lang="pt_BR") for pair in pairs)
    zero = {"fr": "zéro", "en": "zero", "es": "cero", "pt": "zero"}
    texts = {language: f"{zero[language]} {text}" for language, text in texts.items()}
    return Phrase(_flat(texts["fr"].split(), "NUM"), {language: texts[language] for language in LANGUAGES})


def service(draw):
    fr, en, es, pt = draw.zipf(table(lx.SERVICES))
    determiner, name = fr.split(" ")
    gender = determiner[-1]
    noun = Word(name, "NOUN")
    words = [Word("une" if gender == "f" else "un", "DET", "det", noun), noun]
    return Phrase(words, {"en": en, "es": es, "pt": pt}, {"fr": gender})


SLOTS = {
    "first": first_name,
    "full": full_name,
    "titled": titled_name,
    "person": person,
    "worker": worker,
    "job": job,
    "city": city,
    "country": country,
    "date": date,
    "hour": hour,
    "phone": phone,
    "service": service,
    "hotel": _named("le", "hôtel", "the {} hotel", "el hotel {}", "o hotel {}", lx.HOTELS),
    "street": _named("", "rue", "{} street", "la calle {}", "a rua {}", lx.STREETS),
    "past": _expression(lx.PAST_TIMES, "ADV"),
    "future": _expression(lx.FUTURE_TIMES, "ADV"),
    "payment": _expression(lx.PAYMENTS, "NOUN"),
    "manner": _plain(lx.MANNERS, "ADV"),
    "weekday": _plain(lx.WEEKDAYS, "NOUN"),
    "month": _plain(lx.MONTHS, "NOUN"),
    "weather": _plain(lx.WEATHER, "ADJ"),
}
