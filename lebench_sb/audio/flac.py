"""The true length of a FLAC file, from its last frame: STREAMINFO may say 0 or the length of another take."""

from itertools import pairwise

LARGEST = 1 << 17  # bytes of a frame whose checksum is computed
TAIL = 1 << 17  # bytes looked through for the last frame, unless STREAMINFO knows of larger ones
SIZES = {1: 192, 2: 576, 3: 1152, 4: 2304, 5: 4608} | {code: 256 << code - 8 for code in range(8, 16)}


def _table(polynomial, bits):
    top, mask, table = 1 << bits - 1, (1 << bits) - 1, []
    for value in range(256):
        value <<= bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return table


CRC8, CRC16 = _table(0x07, 8), _table(0x8005, 16)


def crc8(data):
    value = 0
    for byte in data:
        value = CRC8[value ^ byte]
    return value


def crc16(data):
    value = 0
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ CRC16[value >> 8 ^ byte]
    return value


def extent(source, start):
    """Fields of an Extent; start: where `fLaC` stands"""
    info = source.read(start + 8, 34)
    if len(info) < 34:
        return {}
    block, largest = int.from_bytes(info[2:4], "big"), int.from_bytes(info[7:10], "big")
    rate, stated = int.from_bytes(info[10:13], "big") >> 4, int.from_bytes(info[13:18], "big") & (1 << 36) - 1
    first = audio_start(source, start)
    tail = max(TAIL, 2 * largest)
    whole, present = last_samples(source, first, block, tail, stated)
    if not whole and present is None:
        whole, present = last_samples(source, first, block, source.size, stated)
    present = present or 0
    missing = stated - present
    cut = not whole or stated > 0 and (missing > 0.01 * stated or missing > 0.1 * rate)
    splice = None
    if present and present != stated:
        head = bytearray(source.read(0, start + 26))
        packed = int.from_bytes(head[start + 18 : start + 26], "big") >> 36 << 36 | present
        head[start + 18 : start + 26] = packed.to_bytes(8, "big")
        splice = bytes(head), start + 26
    words = "" if stated else f"after {present} samples, inside a frame"
    return {"stated": stated or None, "present": present, "cut": cut, "words": words, "splice": splice}


def audio_start(source, start):
    """The byte after the last block of metadata"""
    at = start + 4
    while len(head := source.read(at, 4)) == 4:
        at += 4 + int.from_bytes(head[1:], "big")
        if head[0] & 0x80:
            break
    return at


def last_samples(source, first, block, count, stated):
    """(whether the last frame is whole, samples up to the end of the last whole one or None where there is no
    frame) in the last `count` bytes; where the last frame ends at `stated`, its checksum alone is asked"""
    at = max(first, source.size - count)
    data = without_tag(source.read(at, source.size - at))
    frames = candidates(data, block)
    for place, number, samples in frames:
        if len(data) - place <= LARGEST and crc16(data[place:]) == 0:
            return True, number + samples
        if number + samples == stated:
            return False, number
    for later, earlier in pairwise(frames):
        if later[1] == earlier[1] + earlier[2]:
            return False, later[1]
    return False, (frames[0][1] if frames else 0 if at == first else None)


def without_tag(data):
    """Bytes without an ID3v1 tag at their end"""
    return data[:-128] if len(data) >= 128 and data[-128:-125] == b"TAG" else data


def candidates(data, block, most=8):
    """(place, first sample, samples) of what looks like headers of frames, the last first"""
    found, at = [], len(data)
    while len(found) < most and (at := data.rfind(b"\xff", 0, at)) >= 0:
        if data[at + 1 : at + 2] in (b"\xf8", b"\xf9") and (frame := header(data, at, block)):
            found.append((at, *frame))
    return found


def header(data, at, block):
    """(first sample, samples) of the frame header at byte `at`, None where there is none"""
    codes = data[at : at + 16]
    if len(codes) < 6 or codes[3] & 1 or codes[2] >> 4 == 0 or codes[2] & 15 == 15 or codes[3] >> 4 > 10:
        return None
    length = 1 if codes[4] < 0x80 else 8 - (codes[4] ^ 0xFF).bit_length()
    if length > 7 or codes[4] & 0xC0 == 0x80:
        return None
    number = codes[4] & (0x7F if length == 1 else 0xFF >> length + 1)
    for byte in codes[5 : 4 + length]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    end, samples = 4 + length, SIZES.get(codes[2] >> 4)
    if samples is None:
        extra = 1 if codes[2] >> 4 == 6 else 2
        samples, end = int.from_bytes(codes[end : end + extra], "big") + 1, end + extra
    end += {12: 1, 13: 2, 14: 2}.get(codes[2] & 15, 0)
    if end >= len(codes) or crc8(codes[:end]) != codes[end]:
        return None
    return (number if codes[1] & 1 else number * block), samples
