"""The one place where audio is opened: guarded, with the true length, in quiet."""

import errno
import io
from contextlib import ExitStack, contextmanager, nullcontext

import soundfile

from lebench_sb.audio.extent import extent
from lebench_sb.audio.heads import MISSING, fault_of_new
from lebench_sb.audio.members import BUFFER, first_bytes, inside, open_audio
from lebench_sb.audio.quiet import libmpg123_quiet
from lebench_sb.audio.source import Spliced, open_source
from lebench_sb.core.errors import DataError

OVERSHOOT = 0.1  # seconds by which a segment may end after its file (times are often rounded)
BLOCK = 1 << 18  # samples of all channels read at once
ENDLESS = 1 << 40  # samples: what libsndfile says where it does not know
CONVERT = "`ffmpeg -i IN OUT.flac` converts it"


class Sound:
    """An open audio file.

    rate: Hz; channels; frames: samples per channel that are there (for MP3: as far as its frames tell before
    decoding); extent: what its bytes say of its length.
    """

    def __init__(self, file, extent):
        self.file, self.extent = file, extent
        self.rate, self.channels, self.format, self.subtype = (
            file.samplerate, file.channels, file.format, file.subtype
        )  # fmt: skip
        self.is_mp3 = self.format == "MP3" or "MPEG_LAYER" in self.subtype
        self.frames = file.frames if extent.present is None else min(extent.present, file.frames)

    def read(self, first=0, count=None, dtype="float32"):
        """Samples (n, channels) from number `first` on, `count` or to the end"""
        first = min(first, self.frames)
        jumps = first > 0 and self.is_mp3
        with libmpg123_quiet() if jumps else nullcontext():
            self.file.seek(first)
            count = self.frames - first if count is None else min(count, self.frames - first)
            return self.file.read(count, dtype=dtype, always_2d=True)

    def blocks(self, dtype="float32"):
        """Yields all samples, (n, channels) at a time"""
        left, most = self.frames, max(1, BLOCK // self.channels)
        while left > 0 and len(block := self.file.read(min(most, left), dtype=dtype, always_2d=True)):
            left -= len(block)
            yield block


@contextmanager
def open_sound(path, whole=False):
    """Yields the Sound of a file or a member of a shard.

    whole: a member is read at once and its CRC-32 compared. Raises FileNotFoundError where there is nothing,
    DataError naming the file for what cannot be decoded, also inside the block.
    """
    fault = fault_of_new(path)
    if fault == MISSING:
        raise not_there(path)
    if fault:
        raise DataError(f"{path}: {fault}.")
    found = None
    try:
        with ExitStack() as stack:
            found = extent(path)
            source = stack.enter_context(_readable(path, whole, found))
            with (
                libmpg123_quiet() if found.is_mp3 else nullcontext()
            ):  # of what is cut or stale, `extent` tells
                file = stack.enter_context(soundfile.SoundFile(source))
            if found.present is None and file.frames > ENDLESS:
                raise DataError(f"{path}: its header does not say how long it is; {CONVERT}.")
            yield Sound(file, found)
    except DataError:
        raise
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).split(": ")[-1].strip(" .")
        if isinstance(error, OSError) and error.strerror:  # of disk or shard: also why it is cut short
            raise DataError(f"{path}: not readable ({reason}); copy it again or leave it out.") from error
        reason_found = found.fault if found else ""
        reason_found = reason_found or f"not readable as audio ({reason or type(error).__name__}); {CONVERT}"
        raise DataError(f"{path}: {reason_found}.") from error


@contextmanager
def _readable(path, whole, extent):
    """What soundfile opens"""
    if extent.splice is None:
        with open_audio(path, whole) as source:
            yield source
        return
    if whole and inside(path):
        with open_audio(path, whole):  # compares the checksum
            pass
    with open_source(path) as source:
        spliced = Spliced(source, *extent.splice)
        yield io.BufferedReader(spliced, BUFFER)
        if spliced.fault:
            raise spliced.fault


def not_there(path):
    """FileNotFoundError in the words of the system or the shard"""
    try:
        first_bytes(path, 1)
    except OSError as error:
        return FileNotFoundError(error.errno, error.strerror, str(path))
    return FileNotFoundError(errno.ENOENT, "was not there, now it is", str(path))


def decoder_versions():
    """{"soundfile": ..., "libsndfile": ...}, as they report themselves; libmpg123 is a part of libsndfile"""
    return {"soundfile": soundfile.__version__, "libsndfile": soundfile.__libsndfile_version__}


def decoded_samples(path):
    """(samples per channel that decode, rate) of a file that is whole. Raises what `open_sound` raises, and
    DataError for a file that is cut short or holds none."""
    with open_sound(path) as sound:
        if sound.extent.fault:
            raise DataError(f"{path}: {sound.extent.fault}.")
        samples = sound.frames
        if sound.is_mp3:  # decoded to the end: a frame may hold nothing
            samples = sum(len(block) for block in sound.blocks(dtype="int16"))
        if not samples:
            raise DataError(f"{path}: no audio (0 samples).")
        return samples, sound.rate
