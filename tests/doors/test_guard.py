"""Files of others at the door: too deep, too large, no files, with tags that would run something."""

import errno
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from lebench_sb.core import guard
from lebench_sb.core.errors import DataError, UsageError, exit_code, one_line
from lebench_sb.core.tags import foreign_in, foreign_tags
from lebench_sb.evaluation.schema import check_begin

ROOT = Path(__file__).parents[2]
YAMLS = sorted([*ROOT.glob("recipes/*/*/hparams/*.yaml"), *ROOT.glob("hparams/**/*.yaml")])
LAUGHS = "a0: &a0 [1, 1]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)
)
DEEP = {
    "brackets": ("[" * 50_000, "nested over 100 deep"),
    "braces": ("{a: " * 50_000, "nested over 100 deep"),
    "dashes": ("- " * 50_000, "nested over 100 deep"),
    "aliases on aliases": (LAUGHS, "its aliases make over 1000000 values"),
    "a chain of aliases": (
        "a0: &a0 [1]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}]\n" for k in range(1, 200)),
        "nested over 100 deep",
    ),
    "an alias of itself": ("a: &a [*a]", r"the alias \*a stands for nothing before it"),
    "no YAML": ("a: [}", "expected the node content"),
}


@pytest.mark.parametrize("text, what", DEEP.values(), ids=DEEP)
def test_a_yaml_that_would_hang_or_crash_its_reader_is_one_line(text, what, tmp_path):
    (tmp_path / "g.yaml").write_text(text)
    started = time.monotonic()
    with pytest.raises(UsageError, match=rf"g\.yaml.*{what}"):
        guard.read_yaml(tmp_path / "g.yaml")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "text", ["a: 2024-13-45", f"a: {'9' * 5000}", "a: !!binary é", "a: !!bool x", "? {a: 1}\n: 2", "a: !x y",
             "a: 1\na: 2", "- a", "", "a: !apply:os.getcwd []"],
)  # fmt: skip
def test_what_a_yaml_reader_stumbles_over_is_one_line(text, tmp_path):
    (tmp_path / "g.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="g.yaml"):
        guard.read_yaml(tmp_path / "g.yaml")


def test_aliases_that_stay_small_are_read(tmp_path):
    (tmp_path / "g.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: [2]}\n")
    assert guard.read_yaml(tmp_path / "g.yaml")["b"] == {"x": 1, "y": [2]}


@pytest.mark.parametrize(
    "text, what",
    [
        ("[" * 50_000, "nested over 100 deep"),
        ('{"a":' * 50_000, "nested over 100 deep"),
        ("[1]", "holds a list, expected a dict"),
        ("{", "is not JSON"),
        ("1" * 5000, "is not JSON"),
    ],
)
def test_a_json_that_would_crash_its_reader_is_one_line(text, what):
    with pytest.raises(DataError, match=what):
        guard.parse_json(text, "inputs.json")


def test_brackets_in_a_text_are_no_depth():
    assert guard.parse_json('{"a": "' + "[" * 200 + '\\""}', "x") == {"a": "[" * 200 + '"'}


@pytest.mark.parametrize("content, what", [
    (b"<a>" * 3000 + b"</a>" * 3000, "nested over 100 deep"),
    (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "entities of its own"),
    ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "c">]><a/>'.encode("utf-16"), "entit"),
    (b'<?xml version="1.0" encoding="none"?><a/>', "not XML"),
    (b"<a>", "not XML"), (b"", "not XML"),
])  # fmt: skip
def test_an_xml_that_would_crash_its_reader_is_one_line(content, what, tmp_path):
    (tmp_path / "x.xml").write_bytes(content)
    with pytest.raises(DataError, match=what):
        guard.read_xml(tmp_path / "x.xml")


@pytest.mark.parametrize("read", [guard.read_yaml, guard.read_json, guard.read_xml, guard.read_text])
def test_a_pipe_a_folder_and_a_giant_are_no_files(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "giant", "wb") as file:
        file.truncate(guard.MAX_BYTES + 1)
    for name, what in (("pipe", "a pipe"), ("giant", "bytes: over"), (".", "a folder")):
        with pytest.raises((DataError, UsageError), match=what):
            read(tmp_path / name)


# ---- tags

FOREIGN = [
    "!apply:os.system [id]", "!applyref:os.system [id]", "!new:subprocess.Popen [id]", "!name:shutil.rmtree",
    "!module:os", "!<!apply:os.system> [id]", "!ap%70ly:os.system [id]", "[1, !apply:os.system [id]]",
    "{a: !new:subprocess.Popen [id]}", "(!!python/object/apply:os.system [id])",
    "!!python/object/apply:os.system [id]", "!apply:lebench_sb.training.run.os.system [id]",
    "!name:lebench_sb.core.files.write_atomically", "!name:lebench_sb.audio.augment.torch",
    "!include:/etc/passwd",
    "!new:speechbrain.core.subprocess.Popen [id]", "!name:speechbrain.utils.data_utils.download_file",
    "!new:torch.optim.adamw.sys", "!apply:torch.load [x.pt]", "!name:lebench_sb.corpora.media.prepare_x",
]  # fmt: skip


@pytest.mark.parametrize("value", FOREIGN)
def test_a_tag_that_would_run_something_is_named_with_its_line(value):
    assert foreign_in(value), "as a word of a command"
    for text in (f"a: 1\nb: {value}\n", f"a: 1\nb: '{value}'\n"):
        assert foreign_tags(text)[0][0] == 2


@pytest.mark.parametrize("power", ["!ref 9**9**9", "!ref <a> ** <a>", "!ref 9*'a'"])
def test_arithmetic_that_never_ends_is_foreign(power):
    assert foreign_tags(f"a: 9\nb: {power}\n") == [(2, power)]


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: "/".join(p.parts[-4:]))
def test_the_yamls_of_the_repository_hold_no_foreign_tag(path):
    text = path.read_text(encoding="utf-8")
    guard.check_yaml(text, path)
    assert foreign_tags(text, [ROOT], path.parent) == []


@pytest.mark.parametrize(
    "value", ["5 !", "a!=b", "!ref <seed>", "!!float 3", "!new:torch.optim.Adam", "wow!yes"]
)
def test_plain_values_stay(value):
    assert foreign_in(value) == []


# ---- settings


@pytest.mark.parametrize("key, value", [
    ("task", 3), ("task", "A\nB"), ("corpus", 2024), ("corpus", None), ("mode", ["frozen"]), ("mode", ""),
    ("normaliser", 1), ("layer", 1.5), ("layer", None), ("layer", True), ("seed", "x"), ("seed", 1.0),
    ("seed", -1), ("seed", 2**32), ("seed", True), ("caveats", "x"), ("caveats", ["x"]), ("caveats", [3]),
    ("caveats", None), ("caveats", {"one seed": 1}), ("caveats", ["one sed"]),
])  # fmt: skip
def test_what_results_json_will_refuse_is_said_before_the_training(key, value):
    good = {
        "task": "ASR",
        "corpus": "MLS",
        "mode": "frozen",
        "normaliser": "fr-1",
        "layer": "last",
        "seed": 1,
    }
    check_begin({**good, "caveats": ["one seed"]})
    with pytest.raises(UsageError, match=f"--{key}"):
        check_begin({**good, key: value})


# ---- errors in a line


def fail(number):
    raise OSError(number, os.strerror(number), "/data/x")


def raised(function, *values):
    try:
        function(*values)
    except Exception as error:
        return error


def beneath(error, other):
    try:
        try:
            raise error
        except type(error):
            raise other  # noqa: B904  (a library that says nothing of the cause)
    except type(other) as found:
        return found


FULL = OSError(errno.ENOSPC, "No space left on device")
WORKER = (
    "Caught {} in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n{}"
)
LINES = [
    (OSError(errno.EROFS, "Read-only file system", "/x"), 2, "/x: Read-only file system (the file system is"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "Cannot allocate memory"),
    (OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, "/b"), 2, "/a -> /b: Invalid"),
    (FULL, 1, "the disk is full"),
    (
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
        1,
        "the disk is full",
    ),
    (
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        1,
        "the disk is full",
    ),
    (beneath(FULL, RuntimeError("writer")), 1, "the disk is full"),
    (RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space" })'), 1, "the disk is full"),
    (RuntimeError("I/O error: Read-only file system (os error 30)"), 2, "read-only"),
    (OSError(WORKER.format("OSError", "OSError: [Errno 28] No space left: 'x'")), 1, "the disk is full"),
    (DataError(WORKER.format("DataError", "a.b.DataError: u1: too short")), 3, "u1: too short"),
    (UsageError(WORKER.format("UsageError", "a.b.UsageError: no x")), 2, "no x"),
    (MemoryError(), 1, "not enough memory"),
    (raised(open, "a\0b"), 2, "null"),
    (raised(open, "/tmp/\ud800"), 2, "surrogates"),
    (raised(open, "/tmp/" + "x" * 5000), 2, "too long"),
]


@pytest.mark.parametrize("error, code, words", LINES, ids=[str(k) for k in range(len(LINES))])
def test_what_the_system_says_is_one_short_line(error, code, words):
    line = one_line(error)
    assert exit_code(error) == code and words in line
    assert len(line) < 2100 and line.isprintable()


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("x"), RuntimeError("x"), ValueError("x"), OSError(errno.EBADF, "Bad"),
              beneath(FULL, KeyError("x")), RecursionError("x")],
)  # fmt: skip
def test_a_fault_of_ours_keeps_its_traceback(error):
    assert exit_code(error) is None


def test_an_error_of_a_worker_process_is_told_like_ones_own():
    with ProcessPoolExecutor(1) as pool:
        assert exit_code(error := pool.submit(fail, errno.ENOSPC).exception()) == 1
        assert "/data/x" in one_line(error)
    with ProcessPoolExecutor(1) as pool:
        assert exit_code(pool.submit(os._exit, 1).exception()) == 1
