"""Where the members of a tar lie, from its headers alone, whoever wrote it and whatever is in them.

Python's tarfile goes back to a header that gives a negative size, calls itself for every extended header and
reads one of any size into memory. Here each step leads forward, and everything has a limit. A broken tar is
an OSError that names the file, the member and the byte.
"""

import errno
import os

BLOCK = 512  # bytes of a header, and what members are padded to
FILES = (b"0", b"\0", b"7")  # types of members that are files
KINDS = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"5": "a folder",
    b"6": "a pipe", b"S": "a sparse file", b"M": "the rest of a file of another tar",
}  # fmt: skip
EMPTY = (b"1", b"2", b"3", b"4", b"5", b"6")  # types without data, whatever their size says
EXTENDED = (b"L", b"K", b"x", b"X", b"g")  # say something of the next member
MOST_EXTENDED = 16  # of them in front of one member
LONGEST = 1 << 20  # bytes of one
AFTER = 1 << 16  # bytes behind the last member in which another tar would begin
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "Zstandard"}


def damaged(words, path):
    """OSError that says what is wrong with a shard or member"""
    return OSError(errno.EIO, words, str(path))


def tar_members(file, path):
    """An open tar (binary) -> {name: (first byte, bytes)} of its files, {name: kind in words} of the rest.

    Of several members of one name the last counts, as for `tar xf`. Where more follows after the end mark,
    which `tar` does not see either, the rest says so under the name "". Raises OSError.
    """
    places, others, length, end = {}, {}, os.fstat(file.fileno()).st_size, 0
    for name, first, size, kind in _members(file, path, length):
        name = name.removeprefix("./")
        places.pop(name, None)
        others.pop(name, None)
        if kind:
            others[name] = kind
        else:
            places[name] = (first, size)
        end = first + size
    if os.pread(file.fileno(), AFTER, -(-end // BLOCK) * BLOCK).strip(b"\0"):
        others[""] = "another tar follows this one in the file: join them with `tar --concatenate`"
    return places, others


def _members(file, path, length):
    """Yields (name, first byte, bytes, kind) in the order of the tar; kind: "" for a file"""
    at, headers, extended = 0, {}, 0
    while (header := _header(file, path, at, length)) is not None:
        kind, size, first = header[156:157], _size(header, path, at), at + BLOCK
        if kind in EXTENDED:
            extended += 1
            if size > LONGEST or extended > MOST_EXTENDED:
                raise damaged(f"extended headers without end at byte {at}", path)
            _inside(first, size, length, "an extended header", path)
            headers |= _extended(kind, os.pread(file.fileno(), size, first), path)
            at = first + -(-size // BLOCK) * BLOCK
            continue
        name, size = headers.get("path", _name(header)), headers.get("size", size)
        sparse = kind == b"S" or headers.get("sparse", False)
        if kind == b"S":
            first = _after_sparse(file, header, first, length, path)
        size = 0 if kind in EMPTY else size
        _inside(first, size, length, name, path)
        folder = kind in FILES and name.endswith("/")
        word = "a sparse file" if sparse else "a folder" if folder else KINDS.get(kind, "")
        yield name, first, size, word or ("" if kind in FILES else "no file")
        at, headers, extended = first + -(-size // BLOCK) * BLOCK, {}, 0
    if extended:
        raise damaged("cut short: its last header stands before no member", path)


def _header(file, path, at, length):
    """The header at a byte, None at the end of the tar"""
    header = os.pread(file.fileno(), BLOCK, at)
    if not header and at:
        return None  # no end mark: some writers leave it out
    if at == 0:
        packed = [name for magic, name in PACKED.items() if header.startswith(magic)]
        if packed:
            raise damaged(f"no uncompressed tar: packed with {packed[0]}, unpack it first", path)
    if len(header) == BLOCK and not header.strip(b"\0"):
        return None
    if len(header) < BLOCK:
        raise damaged(f"no uncompressed tar, or cut short ({length} bytes)", path)
    written = _octal(header[148:156])
    plain = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in plain)
    if written is None or written not in (sum(plain), signed):
        what = "no uncompressed tar" if at == 0 else "damaged"
        raise damaged(f"{what}: the header at byte {at} has another checksum", path)
    return header


def _size(header, path, at):
    """The field of a header that says the bytes of its data: octal, or binary after a first bit"""
    field = header[124:136]
    if field[0] & 0x80:
        size = int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else None
        size = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") if size is None else size
    else:
        size = _octal(field)
    if size is None or size < 0:
        raise damaged(f"{_name(header)}: no size in its header at byte {at} ({size})", path)
    return size


def _octal(field):
    """A number as headers write it, None for anything else; an empty field is 0"""
    text = field.split(b"\0")[0].strip(b" ")
    if not text:
        return 0
    return int(text, 8) if all(48 <= byte <= 55 for byte in text) else None


def _name(header):
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _text(field):
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _inside(first, size, length, name, path):
    if first + size > length:
        raise damaged(
            f"{name} would end at byte {first + size} of {length}: cut short, or another file", path
        )


def _after_sparse(file, header, first, length, path):
    """The byte behind the further headers of a sparse file in GNU's old format"""
    more, count = header[482], 0
    while more:
        block, count = os.pread(file.fileno(), BLOCK, first), count + 1
        if len(block) < BLOCK or count > LONGEST // BLOCK:
            raise damaged(f"extended headers without end at byte {first}", path)
        more, first = block[504], first + BLOCK
    return first


def _extended(kind, data, path):
    """What an extended header says of the next member: {"path", "size", "sparse"}"""
    if kind == b"L":
        return {"path": _text(data)}
    if kind in (b"K", b"g"):  # the target of a link; what holds for the whole tar (a commit, a character set)
        return {}
    headers = {}
    for key, value in _records(data, path):
        if key == "path":
            headers["path"] = value.decode("utf-8", "surrogateescape")
        elif key == "size":
            if not value.isdigit():
                raise damaged(f"an extended header says the size {value[:20]!r}", path)
            headers["size"] = int(value[:20])
        elif key.startswith("GNU.sparse"):
            headers["sparse"] = True
            if key == "GNU.sparse.name":
                headers["path"] = value.decode("utf-8", "surrogateescape")
    return headers


def _records(data, path):
    """Yields (key, value) of the records `length key=value` of an extended header"""
    data = data.rstrip(b"\0")
    while data:
        digits, space, _ = data[:24].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        key, equals, value = data[len(digits) + 1 : length].partition(b"=")
        if not equals or length > len(data) or not value.endswith(b"\n"):
            raise damaged(f"an extended header holds {data[:20]!r}", path)
        yield key.decode("utf-8", "replace"), value[:-1]
        data = data[length:]
