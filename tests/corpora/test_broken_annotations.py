"""Every reader of annotations on files that were cut, changed, saved elsewhere or are no files: it reads
them, or says in one line what is wrong and in which file; it never waits and never fails with a traceback."""

import os
import random
import time

import pytest

from lebench_sb.core.errors import Problems, exit_code, one_line
from lebench_sb.corpora import allosat, fabiole, mtedx, orfeo
from lebench_sb.corpora.formats import media, treebanks
from lebench_sb.corpora.formats.stm import read_stm
from lebench_sb.corpora.formats.transcriber import read_trs
from lebench_sb.manifests.traces import read_trace
from lebench_sb.manifests.trees import read_blocks
from lebench_sb.manifests.trials import read_trials
from lebench_sb.manifests.utterance import Utterance

LOT = """<?xml version="1.0" encoding="ISO-8859-1"?>
<media><dialogue id="1" nameSpk="s1">
<turn speaker="spk" startTime="1.0" endTime="4.5"><semAnnotation withContext="false">
<sem concept="reponse" specif="null"><transcription><Sync time="1.2"/>Oui, d'accord</transcription></sem>
<sem concept="temps-date" specif="-reservation"><transcription>l'été &amp; mai</transcription></sem>
</semAnnotation></turn></dialogue></media>
"""
FLAT = """<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE Trans SYSTEM "trans-13.dtd">
<Trans><Speakers><Speaker id="b" name="speaker#1"/></Speakers><Episode><Section>
<Turn speaker="b" startTime="1" endTime="3"><Sync time="1.5"/>
à <SemDebut concept="localisation-ville"/>Nice<SemFin/></Turn></Section></Episode></Trans>
"""
TRS = """<?xml version="1.0" encoding="ISO-8859-1"?>
<Trans><Speakers><Speaker id="s1" name="Zoé" type="female"/></Speakers><Episode>
<Section type="report" startTime="0" endTime="4"><Turn speaker="s1" startTime="0" endTime="4">
<Sync time="0"/>
Bonsoir à tous
<Sync time="2.5"/>
l'été revient
</Turn></Section></Episode></Trans>
"""
STM = """;; été
SHOW 1 Zoé_Le_Goff 1 3.25 <o,f0,female> Bonsoir à tous, l'été revient.
SHOW 1 inter_segment_gap 3.25 8 <o,,>
"""
ARFF = """@relation GOLD
@attribute Instance_name string
@attribute frameTime numeric
@attribute GoldStandard numeric
@data
'été_1',0.00,-0.001
'été_1',0.04,0.5
'été_1',0.08,1.25e-1
"""
TRACE = "time;satisfaction;é\n0.00;0.1;a\n0.25;-.2;b\n0.5;0.1;c\n"
CONLLU = """# sent_id = a-1
# sound_url = http://x/été.wav
1-2\tau\t_\t_\t_\t_\t_\t_\t_\tAlignBegin=100|AlignEnd=200
1\tà\tà\tADP\t_\tA=1|B=2\t3\tcase\t_\t_
2\tle\tle\tDET\t_\t_\t3\tdet\t_\t_
3\tcinéma\t_\tNOUN\t_\t_\t0\troot\t_\tAlignBegin=200|AlignEnd=900

"""
ORFEO = """# sent_id = cefc-a-1
1\teuh\teuh\tINT\tINT\t_\t2\tperiph\t2\tperiph\t0.10\t0.32\tL1
2\tété\tété\tNOM\tNOM\t_\t0\troot\t0\troot\t0.32\t0.55\tL1
"""
YAML = """- {duration: 1.5, offset: 0.25, speaker_id: été, wav: a.wav}
- {duration: 2.5, offset: 1.75, speaker_id: été, wav: a.wav}
"""
TRIALS = "1 ada/é1.wav ada/e2.wav\n0 ada/e2.wav bob/e1.wav\n0 ada/é1.wav bob/e1.wav\n"
PEOPLE = [Utterance(f"{s}--{k}", f"/x/{s}/{k}.wav", 1.0, speaker=s) for s, k in
          (("ada", "é1"), ("ada", "e2"), ("bob", "e1"))]  # fmt: skip


def checked(function):
    """A reader that adds to Problems -> one that raises them"""

    def read(path):
        problems = Problems(path)
        found = list(function(path, problems))
        problems.raise_if_any()
        return found

    return read


def treebank(times, *options):
    def read(path):
        reader = treebanks.Reader(path, path.parent, "fr-1", "merge")
        blocks = read_blocks(path, reader.problems, *options)
        found = [(block.tokens, reader.times(block, times)) for block in blocks]
        reader.finish(drop_bad=False)
        return found

    return read


READERS = {  # name of the file: (a sound one, its reader)
    "lot.xml": (LOT, checked(lambda path, problems: media._lot(path, "full", problems))),
    "7_HC.xml": (FLAT, checked(lambda path, problems: media._flat(path, [], problems))),
    "channels.csv": ("L,1\nR,été\n", media.read_channels),
    "a.trs": (TRS, read_trs),
    "a.stm": (STM, read_stm),
    "a.arff": (ARFF, lambda path: read_trace(path, "GoldStandard", 0.1).values.tolist()),
    "a.csv": (TRACE, lambda path: read_trace(path, "satisfaction", 0.6).values.tolist()),
    "a.conllu": (CONLLU, treebank(treebanks._milliseconds)),
    "a.orfeo": (ORFEO, treebank(orfeo._times, (*orfeo.TIMED, orfeo.SPEAKER), len(orfeo.TIMED))),
    "train.yaml": (YAML, mtedx._items),
    "train.fr": ("Il fait beau, l'été.\nOui.\n", mtedx._lines),
    "train.txt": ("call_1\nété_2.wav\n", allosat._names),
    "speakers.csv": ("speaker,gender\nZoé,F\nbob,male\n", fabiole._genders),
    "trials.txt": (TRIALS, lambda path: [*read_trials(path, PEOPLE).enrol, *read_trials(path, PEOPLE).test]),
}
OTHER_PLATFORMS = {
    "BOM": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
}


SIGNS = b"\0\t\n\r \"'&<>;,#{[]*-0123456789e~\x80\xc3\xff"  # what bytes are changed to


def spoilt(content, seed):
    """Yields the bytes of a file cut at 40 places, changed in 1 to 3 bytes 60 times, and saved otherwise"""
    rng, text = random.Random(seed), content.decode()
    for k in range(40):
        yield content[: k * len(content) // 40]
    for _ in range(60):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.choice(SIGNS)
        yield bytes(changed)
    for encoding in ("utf-16", "utf-16-le", "utf-32", "iso-8859-1", "cp1252", "mac-roman"):
        yield text.encode(encoding)
    yield from (b"\0" * 100, content * 3, b"\x1f\x8b\x08\0" + content, b"<html>" + content)
    yield text.upper().encode()
    yield content.replace(b"\n", b"\r")
    yield content.replace(b"1", b"9" * 400)


def outcome(read, path):
    """What reading `path` gives; an error must be one for people that names the file"""
    began = time.process_time()
    try:
        return read(path)
    except (ValueError, OSError) as error:
        assert exit_code(error) in (2, 3), repr(error)
        assert path.name in one_line(error) and "\n" not in one_line(error), error
        return None
    finally:
        assert time.process_time() - began < 1


@pytest.mark.parametrize("name", READERS)
def test_spoilt_files_are_read_or_told(tmp_path, name):
    text, read = READERS[name]
    path, told = tmp_path / name, 0
    path.write_text(text, encoding="utf-8")
    assert read(path)
    for content in spoilt(text.encode(), name):
        path.write_bytes(content)
        told += outcome(read, path) is None
    assert told > 5


@pytest.mark.parametrize("platform", OTHER_PLATFORMS)
@pytest.mark.parametrize("name", READERS)
def test_files_of_other_platforms_are_read_alike(tmp_path, name, platform):
    text, read = READERS[name]
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    expected = str(read(path)).replace("\\r", "")
    path.write_bytes(OTHER_PLATFORMS[platform](text))
    assert str(read(path)).replace("\\r", "").replace("\\ufeff", "") == expected


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path, name):
    path = tmp_path / "pipe" / name
    path.parent.mkdir()
    os.mkfifo(path)
    assert outcome(READERS[name][1], path) is None
    path = tmp_path / "folder" / name
    path.mkdir(parents=True)
    assert outcome(READERS[name][1], path) is None
    if name != "speakers.csv":  # which may be absent
        assert outcome(READERS[name][1], tmp_path / name) is None
