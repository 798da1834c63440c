"""`lebench shard`: the audio of manifests packed into tar shards, and manifests that point into them.

Shards lie below one folder, `shard-00000.tar` with its index (members.py), in the order of the
manifests. A file's index is written last, so that a packing that was killed goes on behind its last whole
shard. Files are packed as they are: nothing is decoded, and `tar xf` gives them back.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tarfile
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

from tqdm.auto import tqdm

from lebench_sb.audio.members import MARK, make_index, opened, read_index
from lebench_sb.audio.tar_headers import BLOCK
from lebench_sb.core.errors import DataError, Problems, UsageError
from lebench_sb.core.files import new_file, refuse_links, remove_leftovers, write_atomically
from lebench_sb.core.guard import inside, read_json
from lebench_sb.core.locks import take_or_refuse
from lebench_sb.manifests.columns import open_utterances
from lebench_sb.manifests.markers import is_prepared, manifest_hash, read_marker
from lebench_sb.manifests.member_names import without_key
from lebench_sb.manifests.reading import root_prefix
from lebench_sb.manifests.utterance import PATH_LABELS
from lebench_sb.manifests.writing import write_manifest

logger = logging.getLogger(__name__)
PLAN = "shards.json"  # what the folder holds, or will when it is finished
LOCK = ".lock"
SHARD = re.compile(r"shard-\d{5,}\.tar(\.index)?")
OUT = "link that leads out of data_root (copy the file there, or give the folder above both)"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
PIECE = 1 << 20  # bytes copied at once


def make_shards(manifests, data_root, output, size="4GB"):
    """Packs the audio of `manifests` below `output` and writes manifests of the same names there.

    size: of a shard, at most, as "4GB"; a larger file has a shard of its own. Returns the number of shards.
    Label files (`trace`, `tree`) are copied beside the shards. Nothing is written outside `output`, and
    nothing is packed from outside data_root. Raises UsageError for an output folder that holds something else
    or a disk too small, DataError for what is wrong with manifests or files.
    """
    manifests, output, limit = [Path(path) for path in manifests], Path(output), size_in_bytes(size)
    check_output(manifests, output)
    splits = {path: open_utterances([path], data_root) for path in manifests}
    files = gather(splits, data_root)
    labels = gather_labels(splits, data_root, output, [path.name for path in manifests])
    shards = cut(files, limit)
    output.mkdir(parents=True, exist_ok=True)
    with locked(output):
        plan = {"plan": fingerprint(files, limit), "shards": len(shards), "files": len(files)}
        claim(output, plan, sum(size for _, _, size, _ in files))
        places = pack_all(shards, output)
        for source, target in dict(labels.values()).items():
            copy_label(source, target)
        for path, utterances in splits.items():
            write_split(path, utterances, output, places, labels, plan["plan"])
    return len(shards)


def size_in_bytes(written):
    """ "4GB" -> 4000000000; UsageError for anything but a positive number of KB, MB, GB or TB"""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B)", str(written).strip(), re.I)
    count = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if count <= 0:
        raise UsageError(f"--size {written!r}: write a number of KB, MB, GB or TB, as in 4GB.")
    return count


def check_output(manifests, output):
    """Raises UsageError where manifests would overwrite each other or themselves."""
    names = [path.name for path in manifests]
    for path in manifests:
        if names.count(path.name) > 1:
            raise UsageError(f"{path}: another manifest is called {path.name} too; rename one.")
        if (output / path.name).resolve() == path.resolve():
            raise UsageError(f"--output {output} holds {path.name} itself; name another folder.")


def gather(splits, data_root):
    """{manifest: utterances} -> [(file, name of its member, bytes, time), ...], each file once, in order.

    Raises DataError for files that are missing, empty, in a shard already, not below data_root or links that
    lead out of it.
    """
    prefix, members, problems = root_prefix(data_root), {}, Problems("shard")
    leads_out = links_out_of(prefix)
    everything = (u.wav for utterances in splits.values() for u in utterances)
    for wav in tqdm(everything, total=sum(map(len, splits.values())), desc="files", unit="file"):
        if wav in members:
            continue
        name = wav.removeprefix(prefix)
        members[wav] = (wav, name, 0, 0)
        if MARK in wav:
            problems.add("in a shard already", wav)
        elif ".." in Path(name).parts:
            problems.add(f"not below {data_root}", wav)
        elif not os.path.isfile(wav):
            problems.add("missing file", wav)
        else:
            state = os.stat(wav)
            members[wav] = (wav, name, state.st_size, state.st_mtime_ns)
            if not state.st_size:
                problems.add("file of 0 bytes", wav)
            if leads_out(wav):
                problems.add(OUT, f"{wav} -> {os.path.realpath(wav)}")
    problems.raise_if_any()
    return list(members.values())


def links_out_of(prefix):
    """A function: path -> whether the file lies outside the folder `prefix`, links followed"""
    root = os.path.join(os.path.realpath(prefix), "")

    @cache
    def real(folder):
        return os.path.join(os.path.realpath(folder), "")

    def leads_out(path):
        if os.path.islink(path):
            return not os.path.realpath(path).startswith(root)
        return not real(os.path.dirname(path)).startswith(root)

    return leads_out


def gather_labels(splits, data_root, output, names):
    """{manifest: utterances} -> {value of a label that names a file: (file, its place below `output`)}

    names: of the manifests, which `output` will hold. Raises DataError for files that are missing, not below
    data_root, links that lead out of it, or whose place is taken or outside `output`.
    """
    prefix, labels, problems = root_prefix(data_root), {}, Problems("shard")
    leads_out, own = links_out_of(prefix), {PLAN, LOCK, *names, *(f"{name}.done.json" for name in names)}
    values = {(name, u.labels.get(name, "")) for us in splits.values() for u in us for name in PATH_LABELS}
    for name, value in sorted(values):
        source = label_file(name, value, prefix)
        if not source:
            continue
        inner = source.removeprefix(prefix)
        target = os.path.join(os.path.abspath(output), inner)
        labels[value] = source, target
        if not source.startswith(prefix) or ".." in Path(inner).parts:
            problems.add(f"{name} not below {data_root}", value)
        elif not os.path.isfile(source):
            problems.add(f"missing file of {name}", source)
        elif leads_out(source):
            problems.add(OUT, f"{source} -> {os.path.realpath(source)}")
        elif inner in own or SHARD.fullmatch(inner):
            problems.add(f"{name} that has the name of a file of ours, rename it", source)
        elif not inside(target, output):
            problems.add(f"{name} whose place is a link out of {output}", target)
    problems.raise_if_any()
    return labels


def label_file(name, value, prefix):
    """The file that a label names, "" where it names none (a sentence as text, a key)"""
    if not value or "\t" in value or "\n" in value or name == "trace" and not os.path.isabs(value):
        return ""
    path = value if name == "trace" else without_key(os.path.join(prefix, value))
    return path if os.path.isabs(value) or os.path.isfile(path) else ""


def cut(files, limit):
    """Files in the order given, in shards of at most `limit` bytes of audio"""
    shards, room = [], 0
    for file in files:
        if not shards or file[2] > room:
            shards.append([])
            room = limit
        shards[-1].append(file)
        room -= file[2]
    return shards


def fingerprint(files, limit):
    """Hash (hex) of what is packed: names, sizes and times of files, and the size of shards"""
    digest = hashlib.sha256(str(limit).encode())
    for _, name, size, changed in files:
        digest.update(json.dumps([name, size, changed]).encode())
    return digest.hexdigest()


def locked(output):
    """Holds the folder; UsageError while another process packs into it."""
    refuse_links(output, [LOCK, PLAN])
    refusal = lambda holder: f"{output}: another `lebench shard` writes there ({holder}); wait for it."  # noqa: E731
    return take_or_refuse(output / LOCK, "see that nobody else packs there", refusal)


def claim(output, plan, size):
    """Writes the plan into an empty folder, or finds the same there. Raises UsageError for another plan, a
    folder that holds something else, or a disk with too little space."""
    remove_leftovers(output / PLAN)
    if (output / PLAN).is_file():
        if read_json(output / PLAN, UsageError) != plan:
            raise UsageError(f"{output} holds shards of other files or another --size; name another folder.")
    elif held := sorted(set(os.listdir(output)) - {LOCK, f"{PLAN}.tmp"}):
        raise UsageError(f"{output} is not empty, it holds {held[0]}; name a new folder.")
    packed = sum(path.stat().st_size for path in output.glob("shard-*.tar"))
    free = shutil.disk_usage(output).free
    if free < 1.02 * size - packed:
        raise UsageError(
            f"{output}: {(size - packed) / 1e9:.2f} GB to write, {free / 1e9:.2f} GB free on its disk."
        )
    write_atomically(output / PLAN, (json.dumps(plan, indent=1) + "\n").encode())


def pack_all(shards, output):
    """Writes the shards that are not there yet; -> {file: path of its member}, with progress in bytes"""
    places, total = {}, sum(file[2] for shard in shards for file in shard)
    with tqdm(total=total, unit="B", unit_scale=True, desc="shards") as bar:
        for number, files in enumerate(shards):
            path = output / f"shard-{number:05d}.tar"
            if not finished(path, files):
                pack(path, files)
            bar.update(sum(file[2] for file in files))
            places |= {wav: f"{os.path.abspath(path)}::{name}" for wav, name, *_ in files}
    return places


def finished(path, files):
    """True where a shard has an index, which is written last, of these files, and the size that it says."""
    index = Path(f"{path}.index")
    if not index.is_file() or not path.is_file():
        return False
    try:
        entries = read_index(index)
    except OSError as error:
        logger.warning("%s: %s; its shard is packed again.", index, error.strerror)
        return False
    sizes = [(entries.find(name) or (0, -1))[1] for _, name, *_ in files]
    same = len(entries.hashes) == len(files) and sizes == [size for _, _, size, _ in files]
    return same and entries.tar_size == path.stat().st_size


def pack(path, files):
    """One shard of [(file, name, bytes, time), ...], then its index, each under a temporary name first."""
    for target in (path, f"{path}.index"):
        remove_leftovers(target)
    members = []
    with new_file(path) as temporary, open(temporary, "xb") as tar:
        for wav, name, size, _ in files:
            tar.write(tar_header(name, size, wav))
            first = tar.tell()
            members.append((name, first, size, copied(wav, tar, size)))
            tar.write(bytes(-size % BLOCK))
        tar.write(bytes(2 * BLOCK + -(tar.tell() + 2 * BLOCK) % tarfile.RECORDSIZE))
        length = tar.tell()
    write_atomically(f"{path}.index", make_index(length, members).bytes())
    opened.cache_clear()  # this process may hold the shard that was here before


def tar_header(name, size, wav):
    """The header of a member, the same whoever packs it and when; DataError for a name that is too long."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError as error:
        raise DataError(f"{wav}: a tar cannot hold it ({error}); shorten its path below data_root.") from None


def copied(wav, tar, size):
    """Appends a file to the tar -> its CRC-32; DataError when it no longer has `size` bytes."""
    crc, left = 0, size
    with open(wav, "rb") as file:
        while piece := file.read(PIECE):
            tar.write(piece)
            crc, left = zlib.crc32(piece, crc), left - len(piece)
    if left:
        raise DataError(f"{wav}: changed while it was packed; start again when it is finished.")
    return crc


def write_split(path, utterances, output, places, labels, plan):
    """The manifest of the same name in `output`, unless an earlier call finished it"""
    source = read_marker(path).get("parameters", {})
    parameters = {"shard": manifest_hash(path), "plan": plan, "source": source}
    target = output / path.name
    if is_prepared(target, parameters):
        return
    moved = []
    for u in utterances:
        values = {name: u.labels[name] for name in PATH_LABELS if u.labels.get(name) in labels}
        new = {name: moved_label(value, *labels[value]) for name, value in values.items()}
        moved.append(replace(u, wav=places[u.wav], labels=u.labels | new))
    marker = read_marker(path)
    told = {"dropped": marker.get("dropped"), "caveats": marker.get("caveats", ())}
    write_manifest(target, moved, output, parameters, **told)


def moved_label(value, source, target):
    """The value of a label whose file was copied: absolute with its key, or as it is where it is relative"""
    return target + value.removeprefix(source) if value.startswith(source) else value


def copy_label(source, target):
    """A file of a label, copied to its place unless the same is there"""
    target, content = Path(target), Path(source).read_bytes()
    if not target.is_file() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        write_atomically(target, content)
