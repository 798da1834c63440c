"""Ogg: whether the last page is whole and marked as the last, and whether all pages are what was written."""

import zlib

PAGE = 65307  # bytes of the largest page
LAST = 0x04  # flag of a stream's last page
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def extent(source):
    """Fields of an Extent. An Ogg file does not say its length: only that its end is missing can be seen."""
    tail = source.read(source.size - 2 * PAGE, 2 * PAGE)
    at = tail.rfind(b"OggS")
    words = "no page of Ogg in its last 130 kB" if at < 0 else ""
    if at >= 0:
        size = page_size(tail, at)
        if size is None or at + size > len(tail):
            words = "inside a page of Ogg"
        elif not tail[at + 5] & LAST:
            words = "its last page is not marked as the end of the stream"
    return {"cut": bool(words), "words": words}


def page_size(data, at):
    """Bytes of the page at byte `at`, None where its head is not whole"""
    if len(data) < at + 27 or len(data) < at + 27 + data[at + 26]:
        return None
    return 27 + data[at + 26] + sum(data[at + 27 : at + 27 + data[at + 26]])


def damaged_pages(source):
    """Number of pages whose checksum is wrong, and of stretches that are no page"""
    at, bad = 0, 0
    while len(data := source.read(at, PAGE)) >= 27:
        size = page_size(data, 0) if data[:4] == b"OggS" else None
        if size is None or size > len(data):
            bad += 1
            after = data.find(b"OggS", 1)
            at += after if after > 0 else max(len(data) - 3, 1)
            continue
        page = data[:22] + bytes(4) + data[26:size]
        bad += checksum(page) != int.from_bytes(data[22:26], "little")
        at += size
    return bad


def checksum(page):
    """Ogg's CRC-32: that of zlib over reversed bits, without its inversions"""
    value = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(value.to_bytes(4, "little").translate(REVERSED), "big")
