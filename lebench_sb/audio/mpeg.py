"""The true length of an MP3: its frames, counted. Headers of variable-rate files lie or are missing, and
libsndfile reads as many samples as they say, or as the first frame's bit rate makes it guess."""

import struct

RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz, by version
MPEG1 = {
    3: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}  # kbit/s, by the code of the layer
MPEG2 = {3: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)}
MPEG2 |= {code: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160) for code in (1, 2)}
SAME = 0xFFFE0C00  # bits of a header that stay the same in a stream: sync, version, layer, rate
ENDS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"3DI")
SEARCHED = 1 << 16  # bytes before the first frame


def parsed(word):
    """(bytes, samples, Hz) of the frame whose header is the 32-bit number `word`, None for no header"""
    version, layer, code, rate = word >> 19 & 3, word >> 17 & 3, word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer == 0 or code in (0, 15) or rate == 3:
        return None
    hertz = RATES[version][rate]
    bits = (MPEG1 if version == 3 else MPEG2)[layer][code - 1] * 1000
    padding = word >> 9 & 1
    if layer == 3:
        return (12 * bits // hertz + padding) * 4, 384, hertz
    samples = 576 if layer == 1 and version != 3 else 1152
    return samples // 8 * bits // hertz + padding, samples, hertz


def is_frame(head):
    """Whether four bytes may begin a frame"""
    return len(head) == 4 and parsed(int.from_bytes(head, "big")) is not None


def extent(source, start):
    """Fields of an Extent; start: the byte after the tags at the beginning"""
    data = source.read(0, source.size)
    first = first_frame(data, start)
    if first is None:
        return {}
    frames, rates, end = walked(data, first)
    word = int.from_bytes(data[first : first + 4], "big")
    size, samples, hertz = parsed(word)
    tag = xing(data, first, word)
    if tag is None:
        return untagged(data, first, frames, rates)
    place, stated, stated_bytes = tag
    frames -= 1  # the one that holds the tag
    missing = stated - frames
    lost = stated_bytes is None or stated_bytes - (end - first) > max(0.01 * stated_bytes, 1)
    cut = lost and (missing > max(0.01 * stated, 1) or missing * samples > max(0.1 * hertz, 2 * samples))
    splice = None
    if abs(missing) > 2:
        head = bytearray(data[: place + 12])
        struct.pack_into(">I", head, place + 4, frames)
        if stated_bytes is not None:
            struct.pack_into(">I", head, place + 8, end - first)
        splice = bytes(head), place + 12
    words = f"{frames * samples} of {stated * samples} samples" if cut else ""
    return {"cut": cut, "words": words, "splice": splice}


def untagged(data, first, frames, rates):
    """A stream whose header says nothing: constant bit rates are computed well, others get a tag of ours"""
    if len(rates) <= 1:
        return {}
    return {"splice": (tag_frame(data[first : first + 4], frames, len(data) - first), first)}


def first_frame(data, start):
    """The place of the first header that another follows, None where there is none"""
    at = start
    while 0 <= (at := data.find(b"\xff", at)) < start + SEARCHED:
        frame = parsed(int.from_bytes(data[at : at + 4], "big")) if len(data) >= at + 4 else None
        if frame:
            after = int.from_bytes(data[at + frame[0] : at + frame[0] + 4], "big")
            if at + frame[0] + 4 > len(data) or parsed(after):
                return at
        at += 1
    return None


def walked(data, first):
    """(whole frames, their bit-rate codes without the first's, byte after the last)"""
    same = int.from_bytes(data[first : first + 4], "big") & SAME
    at, end, frames, rates, sizes = first, first, 0, set(), {}
    while at + 4 <= len(data):
        word = int.from_bytes(data[at : at + 4], "big")
        key = word & 0xF200
        if word & SAME != same or (key & 0xF000) in (0, 0xF000):
            at = resumed(data, at, same)
            if at is None:
                break
            continue
        if key not in sizes:
            sizes[key] = parsed(word)[0]
        if at + sizes[key] > len(data):
            break
        frames, at = frames + 1, at + sizes[key]
        if frames > 1:  # the first may hold a tag, of another rate
            rates.add(key & 0xF000)
        end = at
    return frames, rates, end


def resumed(data, at, same):
    """Where frames go on after what is none, None at the end of the file or at tags"""
    if data.startswith(ENDS, at):
        return None
    if data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        length = 0
        for byte in data[at + 6 : at + 10]:
            length = length << 7 | byte & 0x7F
        return at + 10 + length
    while (at := data.find(b"\xff", at + 1)) >= 0:
        word = int.from_bytes(data[at : at + 4], "big")
        frame = parsed(word) if word & SAME == same and len(data) >= at + 4 else None
        if frame:
            after = data[at + frame[0] : at + frame[0] + 4]
            if len(after) < 4 or int.from_bytes(after, "big") & SAME == same:
                return at
    return None


def xing(data, first, word):
    """(place of the flags, frames, bytes or None) of a Xing or Info tag that names its frames, else None"""
    mono, mpeg1 = word >> 6 & 3 == 3, word >> 19 & 3 == 3
    at = first + 4 + ((17 if mono else 32) if mpeg1 else (9 if mono else 17))
    if data[at : at + 4] not in (b"Xing", b"Info") or len(data) < at + 16:
        return None
    flags, frames, size = struct.unpack_from(">III", data, at + 4)
    return (at + 4, frames, size if flags & 2 else None) if flags & 1 else None


def tag_frame(head, frames, size):
    """A frame with a Xing tag that counts `frames`, of the stream that begins with the header `head`"""
    word = int.from_bytes(head, "big") | 1 << 16
    for code in range(1, 15):
        word = word & ~0xF200 | code << 12
        if parsed(word)[0] >= 64:
            break
    length = parsed(word)[0]
    mono, mpeg1 = word >> 6 & 3 == 3, word >> 19 & 3 == 3
    side = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    tag = b"Xing" + struct.pack(">III", 3, frames, size + length)
    return (word.to_bytes(4, "big") + bytes(side) + tag).ljust(length, b"\0")
