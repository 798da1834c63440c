"""Files as people's disks have them: what is listed below a folder, and what a table's path means.

Archives made on macOS bring `._x.wav`, `__MACOSX/` and `.DS_Store`, which hold no speech, and file names
whose accents are decomposed; tables made on Windows separate folders with backslashes; converted audio keeps
its stem and changes its suffix. One rule for every corpus: a path that is there as it is written is taken;
else the only file that it can mean; two such files are told, never chosen from.
"""

import os
import unicodedata
from pathlib import Path
from urllib.parse import unquote

# what soundfile reads, and what people convert from (the error of an unreadable file then says how)
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph", ".aif", ".aiff", ".au", ".m4a", ".aac", ".wma")
JUNK = ("__macosx", ".ds_store", "thumbs.db", "desktop.ini", ".appledouble", ".spotlight-v100", ".trashes")


def is_junk(name):
    """Whether a file or folder is what a system leaves beside people's files: `._a.wav`, `__MACOSX`"""
    return name.startswith("._") or name.lower() in JUNK


def listed(folder):
    """Names in a folder, sorted, without what systems leave there; [] where there is no such folder"""
    try:
        return sorted(name for name in os.listdir(folder) if not is_junk(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_below(folder, suffixes=None):
    """The files below a folder at any depth, absolute Paths, sorted as `sorted(folder.rglob("*"))` would.

    suffixes: only those, in any case (`.WAV` is `.wav`); None for all. Links to folders are not followed;
    what systems leave (`is_junk`) is no file of the corpus. Raises OSError for a folder that may not be read.
    """

    def stop(error):
        raise error

    files = []
    for place, folders, names in os.walk(os.path.abspath(folder), onerror=stop):
        folders[:] = [name for name in folders if not is_junk(name)]
        for name in names:
            if not is_junk(name) and (suffixes is None or os.path.splitext(name)[1].lower() in suffixes):
                files.append(Path(place, name))
    return sorted(files)


def below(folder, *names):
    """folder/name/name..., where each name may also be written in other letter case if only one is: the
    path that is there, else as written"""
    path = Path(folder)
    for name in names:
        if not (path / name).exists():
            same = [other for other in listed(path) if _plain(other) == _plain(name)]
            name = same[0] if len(same) == 1 else name
        path = path / name
    return path


def _plain(name):
    """A name as one writes it who cares neither for composition nor for case"""
    return unicodedata.normalize("NFC", name).casefold()


class Finder:
    """Finds the files that a table names below a folder; every folder is listed once, so it suits a million
    paths and one preparation."""

    def __init__(self, folder):
        self.folder = os.path.abspath(folder)
        self.names = {}  # folder: {name: None}, in order
        self.spellings = {}  # folder: {plain name, or plain stem + ".": [names]}

    def find(self, name):
        """A path of a table -> (absolute path, "") of the file; (None, what is wrong in words) where there is
        none or where several fit.

        Tried in turn: as written; with slashes for backslashes; in other composition of accents or letter
        case; with another suffix of audio, or the one it lacks; with `%20` and the like decoded.
        """
        several = ""
        for written in dict.fromkeys((name, name.replace("\\", "/"), unquote(name.replace("\\", "/")))):
            if not written.strip() or "\0" in written:
                continue
            whole = os.path.normpath(os.path.join(self.folder, written))
            if self._is_file(whole):
                return whole, ""
            fitting = self._fitting(whole)
            if len(fitting) == 1:
                return fitting[0], ""
            if fitting:
                several = f"several files it may be ({', '.join(map(os.path.basename, fitting))})"
        return None, several or "missing file"

    def _is_file(self, path):
        folder, name = os.path.split(path)
        return name in self._listed(folder) and os.path.isfile(path)

    def _listed(self, folder):
        if folder not in self.names:
            self.names[folder] = dict.fromkeys(listed(folder))
        return self.names[folder]

    def _fitting(self, path):
        """The files that a path can mean: its folders first, then its last name"""
        head, last = os.path.split(path)
        folder = head if self._listed(head) else self._folder(head)
        if folder is None:
            return []
        spellings = self._spellings(folder)
        stem, suffix = os.path.splitext(last)
        ways = [_plain(last), *([_plain(stem) + "."] if suffix.lower() in AUDIO else []), _plain(last) + "."]
        for key in ways:
            paths = [os.path.join(folder, name) for name in spellings.get(key, [])]
            paths = [each for each in paths if os.path.isfile(each)]
            if len(paths) > 1:  # of files that differ in case alone, the one written in the same case
                same = [each for each in paths if _composed(os.path.basename(each)) == _composed(last)]
                paths = same if len(same) == 1 else paths
            if paths:
                return paths
        return []

    def _folder(self, path):
        """A folder that is there under another spelling, or None"""
        if os.path.isdir(path):
            return path
        head, last = os.path.split(path)
        if not last:
            return None
        head = self._folder(head)
        folders = [] if head is None else self._spellings(head).get(_plain(last), [])
        folders = [name for name in folders if os.path.isdir(os.path.join(head, name))]
        return os.path.join(head, folders[0]) if len(folders) == 1 else None

    def _spellings(self, folder):
        """{plain name: names, and plain stem of audio with a dot: names} of a folder"""
        if folder not in self.spellings:
            spellings = self.spellings[folder] = {}
            for name in self._listed(folder):
                spellings.setdefault(_plain(name), []).append(name)
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in AUDIO:
                    spellings.setdefault(_plain(stem) + ".", []).append(name)
        return self.spellings[folder]


def _composed(name):
    return unicodedata.normalize("NFC", name)


def found_audio(folder, name):
    """`Finder(folder).find(name)` for a few paths; for many, keep one Finder"""
    return Finder(folder).find(name)
