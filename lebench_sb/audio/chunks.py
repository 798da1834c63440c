"""Containers that name the bytes of their samples: WAV, RF64, W64, AIFF, AU, CAF, NIST SPHERE."""

import re
import struct
from dataclasses import dataclass

PLAIN_TAGS = (1, 3, 6, 7)  # PCM, float, A-law, mu-law: all samples of a block take equally many bytes
EXTENSIBLE = 0xFFFE
STREAMED = 0x7F000000  # bytes: what writers to a pipe put where they cannot know (sox, ffmpeg, arecord)
SLACK = 64  # bytes by which sloppy writers miss the length
MOST = 10_000  # chunks or blocks of a file that are looked at
HEADS = 1 << 20  # bytes in which the samples must begin
W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a"
W64_FMT = b"fmt \xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a"


@dataclass
class Found:
    """Where samples lie: their first byte; bytes stated, None where left open; bytes of a block of all
    channels, None where blocks hold several samples; rate; (place, struct format, what is added) of the field
    of the length; order and width of the chunks that may follow, None where none may"""

    first: int
    stated: int | None
    block: int | None
    rate: int
    field: tuple
    chunks: tuple | None


def chunked(source, magic):
    """Fields of an Extent, None where `magic` is of another kind"""
    for signs, find in READERS.items():
        if all(magic[at : at + len(sign)] == sign for at, sign in signs):
            found = find(source)
            return {} if found is None or not 20 <= found.first <= source.size else judged(source, found)
    return None


def judged(source, found):
    """Compares stated bytes with those that follow"""
    rest = source.size - found.first
    true, stated = rest, found.stated
    if stated is not None and stated <= rest and not is_stale(source, found, rest):
        true = stated
    block = found.block or 1
    missing = (stated or 0) - true
    cut = missing > SLACK and (missing > 0.01 * stated or missing > 0.1 * found.rate * block)
    words = f"{true} of {stated} bytes of samples" if cut and not found.block else ""
    return {
        "stated": stated // block if stated is not None and found.block else None,
        "present": true // block if found.block else None,
        "cut": cut,
        "words": words,
        "splice": None if true == stated else patched(source, found, true),
    }


def is_stale(source, found, rest):
    """Whether samples go on after the stated length: something does, and it is neither chunks nor padding"""
    more = rest - found.stated
    if more <= SLACK:
        return False
    at = found.first + found.stated
    if found.chunks and follow(source, at, *found.chunks):
        return False
    if source.read(at, 3) == b"TAG" and more <= 128 + SLACK:
        return False
    return found.stated == 0 or any(source.read(at, HEADS))


def follow(source, at, order, width):
    """Whether chunks, one after the other, lead to the end of the file"""
    at += at % 2
    for _ in range(MOST):
        if source.size - at < 4 + width:
            return True
        name, size = source.read(at, 4), source.read(at + 4, width)
        size = int.from_bytes(size, "little" if order == "<" else "big")
        if not re.fullmatch(rb"[ -~]{4}", name) or size > source.size - at - 4 - width:
            return False
        at += 4 + width + size + (size % 2 if width == 4 else 0)
    return False


def patched(source, found, true):
    """(head, skip): the head with the true number of bytes, None where the field cannot hold it"""
    place, form, added = found.field
    if found.first > HEADS or true + added >= 1 << 8 * struct.calcsize(form):
        return None
    head = bytearray(source.read(0, found.first))
    struct.pack_into(form, head, place, true + added)
    return bytes(head), found.first


def open_length(stated, source, unknown):
    """Stated bytes; None for a number that writers to a pipe put there"""
    streamed = stated >= STREAMED and source.size < stated // 2
    return None if streamed or stated in unknown else stated


def chunks_of(source, at, order, width=4):
    """Yields (name, place of the size, size, first byte) of the chunks in the first HEADS bytes"""
    while at < HEADS and len(head := source.read(at, 4 + width)) == 4 + width:
        size = int.from_bytes(head[4:], "little" if order == "<" else "big")
        yield head[:4], at + 4, size, at + 4 + width
        at += 4 + width + size + (size % 2 if width == 4 else 0)


def block_of(source, first, size, order="<"):
    """(bytes of a block or None, rate) of a `fmt ` chunk"""
    data = source.read(first, min(size, 40))
    if len(data) < 16:
        return None, 16000
    tag, _, rate, _, align = struct.unpack_from(f"{order}HHIIH", data)
    if tag == EXTENSIBLE and len(data) >= 26:
        tag = struct.unpack_from(f"{order}H", data, 24)[0]
    return (align or None) if tag in PLAIN_TAGS else None, rate


def wav(source, order="<"):
    """RIFF, RIFX and RF64"""
    block, rate, ds64 = None, 16000, None
    for name, place, size, first in chunks_of(source, 12, order):
        if name == b"ds64":
            ds64 = first + 8
        elif name == b"fmt ":
            block, rate = block_of(source, first, size, order)
        elif name == b"data":
            return wav_data(source, order, place, size, first, block, rate, ds64)
    return None


def wav_data(source, order, place, size, first, block, rate, ds64):
    field, chunks = (place, f"{order}I", 0), (order, 4)
    if ds64 is not None and size == 0xFFFFFFFF:
        size = int.from_bytes(source.read(ds64, 8), "little")
        field = (ds64, "<Q", 0)
        stated = None if size >= 1 << 62 else size
    else:
        stated = open_length(size, source, (0xFFFFFFFF,))
    return Found(first, stated, block, rate, field, chunks)


def w64(source):
    block, rate, at = None, 16000, 40
    while at < HEADS and len(head := source.read(at, 24)) == 24:
        name, size = head[:16], int.from_bytes(head[16:], "little")
        if name == W64_FMT:
            block, rate = block_of(source, at + 24, size - 24)
        elif name == W64_DATA:
            stated = None if size >= 1 << 62 or size <= 24 else size - 24
            if stated is not None and stated < source.size - at - 24:
                stated = None  # libsndfile reads to the end, whatever is said here
            return Found(at + 24, stated, block, rate, (at + 16, "<Q", 24), None)
        at += max(24, size + -size % 8)
    return None


def aiff(source):
    block, rate = None, 16000
    for name, place, size, first in chunks_of(source, 12, ">"):
        if name == b"COMM":
            block, rate = common(source, first, size)
        elif name == b"SSND":
            stated = open_length(max(size - 8, 0), source, ())
            return Found(first + 8, stated, block, rate, (place, ">I", 8), (">", 4))
    return None


def common(source, first, size):
    """(bytes of a block or None, rate) of AIFF's COMM"""
    data = source.read(first, min(size, 22))
    if len(data) < 18:
        return None, 16000
    channels, _, bits, exponent, mantissa = struct.unpack_from(">hIhHQ", data)
    plain = len(data) < 22 or data[18:22] in (b"NONE", b"sowt", b"twos", b"in24", b"in32", b"fl32", b"FL32")
    shift = (exponent & 0x7FFF) - 16383 - 63
    rate = int(mantissa * 2.0**shift) if -64 < shift < 0 else 16000
    block = channels * ((bits + 7) // 8)
    return block if plain and block > 0 and bits > 0 else None, rate


def au(source):
    order = ">" if source.read(0, 4) == b".snd" else "<"
    data = source.read(0, 24)
    if len(data) < 24:
        return None
    first, size, encoding, rate, channels = struct.unpack_from(f"{order}5I", data, 4)
    width = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding)
    stated = open_length(size, source, (0xFFFFFFFF,))
    block = width * channels if width and channels else None
    return Found(first, stated, block, rate, (8, f"{order}I", 0), None)


def caf(source):
    block, rate = None, 16000
    for name, place, size, first in chunks_of(source, 8, ">", 8):
        if name == b"desc":
            data = source.read(first, 24)
            if len(data) == 24:
                value, _, _, packet = struct.unpack_from(">d4sII", data)
                block, rate = packet or None, int(value) if 0 < value < 1e7 else 16000
        elif name == b"data":
            stated = None if size >= 1 << 62 or size < 4 else size - 4
            return Found(first + 4, stated, block, rate, (place, ">Q", 4), (">", 8))
    return None


def nist(source):
    """Fields of an Extent of a SPHERE file: its head is text of 1,024 bytes or more"""
    text = source.read(0, 8192)
    values = {k: v for k, v in re.findall(rb"^(\w+) -i (\d{1,15})\b", text, re.M)}
    size = re.match(rb"NIST_1A\s+(\d{1,9})\b", text)
    wanted = (b"sample_count", b"channel_count", b"sample_n_bytes", b"sample_rate")
    if not size or any(int(values.get(name, 0)) <= 0 for name in wanted):
        return {}
    if re.search(rb"^sample_coding -s\d+ \S*(shorten|shortpack|wavpack)", text, re.M):
        return {}
    stated, channels, width, rate = (int(values[name]) for name in wanted)
    present = max(source.size - int(size[1]), 0) // (channels * width)
    missing = stated - present
    cut = missing > 0.01 * stated or missing > 0.1 * rate
    return {"stated": stated, "present": present, "cut": cut}


def voc(source):
    """Fields of an Extent of a Creative Voice file, whose blocks name their bytes"""
    at = int.from_bytes(source.read(20, 2), "little")
    for _ in range(MOST):
        head = source.read(at, 4)
        if len(head) < 4 or not head[0]:
            break
        size = int.from_bytes(head[1:], "little")
        left = source.size - at - 4
        if size > left + SLACK:
            return {"cut": True, "words": f"{left} of {size} bytes of a block of samples"}
        at += 4 + size
    return {}


READERS = {
    ((0, b"RIFF"), (8, b"WAVE")): wav,
    ((0, b"RIFX"), (8, b"WAVE")): lambda source: wav(source, ">"),
    ((0, b"RF64"), (8, b"WAVE")): wav,
    ((0, b"riff.\x91\xcf\x11"),): w64,
    ((0, b"FORM"), (8, b"AIF")): aiff,
    ((0, b".snd"),): au,
    ((0, b"dns."),): au,
    ((0, b"caff"),): caf,
}
