"""How long audio is: measured by decoding it, whatever a header says."""

from concurrent.futures import ThreadPoolExecutor

from lebench_sb.audio.heads import kind_of
from lebench_sb.core.errors import DataError, Problems
from lebench_sb.manifests.markers import READERS


def pooled(function, items):
    """[function(item) for item in items], in order, with a few threads."""
    items = list(items)
    if len(items) < 2 * READERS:
        return [function(item) for item in items]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, items, chunksize=1))


def audio_duration(path):
    """Seconds of audio in `path`, as `data.load_audio` reads it, whatever its header says.

    An MP3 is decoded to its end. Raises FileNotFoundError, or DataError naming the file when it is empty, no
    audio, cut short, or holds no samples.
    """
    from lebench_sb.audio.sound import decoded_samples  # here: manifests need no audio library

    try:
        samples, rate = decoded_samples(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: missing audio file.") from None
    return samples / rate


def probe_durations(paths):
    """({path: seconds}, {path: fault in words}) of every distinct path, measured with a few threads."""

    def measure(path):
        try:
            return audio_duration(path)
        except (DataError, FileNotFoundError) as error:
            return str(error).removeprefix(f"{path}: ").rstrip(".")

    paths = sorted({str(path) for path in paths})
    results = dict(zip(paths, pooled(measure, paths), strict=True))
    faults = {path: result for path, result in results.items() if isinstance(result, str)}
    return {path: result for path, result in results.items() if path not in faults}, faults


def measure_durations(paths, where="audio"):
    """{path: seconds} of every distinct path.

    Raises DataError, naming `where`: of the files that cannot be measured, the first five of each kind and
    their number.
    """
    durations, faults = probe_durations(paths)
    problems = Problems(where)
    for path, fault in faults.items():
        problems.add(*kind_of(fault, path))
    problems.raise_if_any()
    return durations
