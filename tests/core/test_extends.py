"""`extends`: what a variant may say, what is made of it, and what is refused with file and line."""

import io
import os
import random
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lebench_sb.cli import run
from lebench_sb.core.command_line import parse
from lebench_sb.core.errors import UsageError
from lebench_sb.core.extends import whole
from lebench_sb.core.yaml_values import plain_values, resolve
from lebench_sb.training.fingerprint import changed as changed_parts
from lebench_sb.training.fingerprint import fingerprint

ROOT = Path(__file__).parents[2]

BASE = """\
# The base.
seed: 1234 # of everything
rate: 0.1 # confirmed

# Data
folder: !PLACEHOLDER # where it lies
sizes: [1, 2]
prepare: !name:lebench_sb.corpora.mls.prepare_mls # of MLS
    data_folder: !ref <folder>
    # where manifests go
    manifest_folder: out # unknown
weights: {a: 1, b: 2} # of the losses

# Model
head: !new:torch.nn.Linear # the head
    in_features: 3
    out_features: 4
plain:
    one: 1
    inner:
        two: 2
last: end
# fin
"""


@pytest.fixture
def files(tmp_path):
    """Writes {name: text} -> the path of the first"""

    def write(**texts):
        paths = []
        for name, text in {**texts, "base": texts.get("base", BASE)}.items():
            paths.append(tmp_path / f"{name}.yaml")
            paths[-1].write_text(text)
        return paths[0]

    return write


def values(text):
    return plain_values(text)


def test_a_yaml_that_extends_nothing_is_read_as_it_is(files):
    assert whole(files(base=BASE)) == BASE


def test_only_what_differs_changes_and_comments_go_with_their_values(files):
    own = """\
# The variant.
extends: base.yaml
rate: 0.2 # inferred

# Data
sizes:
    - 3
prepare:
    manifest_folder: elsewhere # ours
weights: {b: 3}
plain:
    inner:
        two: 22
"""
    expected = BASE.replace("# The base.", "# The variant.").replace(
        "rate: 0.1 # confirmed", "rate: 0.2 # inferred"
    )
    expected = expected.replace("sizes: [1, 2]", "sizes:\n    - 3").replace(
        "out # unknown", "elsewhere # ours"
    )
    expected = expected.replace("weights: {a: 1, b: 2} #", "weights: #").replace("two: 2", "two: 22")
    expected = expected.replace("of the losses\n", "of the losses\n    a: 1\n    b: 3\n")
    assert whole(files(own=own)) == expected


def test_the_tag_of_the_variant_wins_and_takes_the_arguments_along(files):
    made = values(
        whole(files(own="extends: base.yaml\nhead: !new:torch.nn.GRU # other\n    input_size: 7\n"))
    )
    assert str(made["head"].tag.value) == "!new:torch.nn.GRU" and dict(made["head"]) == {"input_size": 7}
    made = values(whole(files(own="extends: base.yaml\nhead: !new:torch.nn.Linear\n    in_features: 7\n")))
    assert dict(made["head"]) == {"in_features": 7, "out_features": 4}, (
        "the same tag: what it says beside the rest"
    )
    made = values(whole(files(own="extends: base.yaml\nhead: {in_features: 7}\n")))
    assert str(made["head"].tag.value) == "!new:torch.nn.Linear" and made["head"]["out_features"] == 4
    assert values(whole(files(own="extends: base.yaml\nplain: 3\n")))["plain"] == 3


def test_an_argument_that_the_callable_has_may_be_new(files):
    text = whole(files(own="extends: base.yaml\nhead:\n    bias: False\n"))
    assert values(text)["head"] == {"in_features": 3, "out_features": 4, "bias": False}
    text = whole(
        files(bare="extends: own.yaml\nloss: {reduction: sum}\n", own="loss: !new:torch.nn.L1Loss\n")
    )
    assert text == "loss: !new:torch.nn.L1Loss\n    reduction: sum\n"


def test_a_block_of_text_keeps_its_lines_and_leaves_the_heading_below_it(files):
    base = "a: |\n    one\n    # two\n\n# Data\nb: 1\nlist:\n- c # d\n- e\n"
    assert whole(files(own="extends: base.yaml\n", base=base)) == base
    assert (
        whole(files(own="extends: base.yaml\na: 2\n", base=base))
        == "a: 2\n# Data\nb: 1\nlist:\n- c # d\n- e\n"
    )
    nested = (
        "m:\n    n:\n        - 1\n        - |\n            # z\n            # z\n# Next\nlast: 1\n# fin\n"
    )
    assert whole(files(own="extends: base.yaml\nlast: 2\n", base=nested)) == nested.replace(
        "last: 1", "last: 2"
    )
    text = whole(files(own="extends: base.yaml\nb: |\n  x\n   # y\n", base=base))
    assert values(text)["a"] == "one\n# two\n" and values(text)["b"] == "x\n # y\n"


def test_nothing_is_imported_to_check_the_arguments_of_a_foreign_class(files):
    text = whole(files(own="extends: base.yaml\nx: {b: 2}\n", base="x: !new:no.such.Thing\n    a: 1\n"))
    assert text == "x: !new:no.such.Thing\n    a: 1\n    b: 2\n"


def test_new_keys_stand_in_their_section_behind_the_one_before(files):
    own = """\
extends: base.yaml
adds: [first, between, inside, plain.three, fresh]

# Data
first: 1
sizes: []
between: 2 # kept

# Model
inside: 3
plain:
    three: 3

# Other
fresh: 4
"""
    text = whole(files(own=own))
    keys = re.findall(r"^(\w+):", text, re.M)
    assert keys == "seed rate folder first sizes between prepare weights head inside plain last fresh".split()
    assert "\n\n# Other\nfresh: 4\n" in text and "between: 2 # kept\n" in text and text.count("# Data") == 1
    assert values(text)["plain"] == {"one": 1, "inner": {"two": 2}, "three": 3}


def test_a_chain_is_followed_each_path_from_the_file_it_stands_in(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "shape.yaml").write_text("!new:torch.nn.Linear\nin_features: 3\nout_features: 4\n")
    (tmp_path / "base.yaml").write_text("x: 1\ny: 1\nz: 1\nhead: !include:shape.yaml\n    out_features: 5\n")
    (tmp_path / "a" / "middle.yaml").write_text("extends: ../base.yaml\ny: 2\nz: 2\n")
    own = tmp_path / "a" / "b" / "own.yaml"
    own.write_text("extends: '../middle.yaml' # the middle\nz: 3\nhead:\n    in_features: 9\n")
    found = values(resolve(own, {}))
    assert [found[key] for key in "xyz"] == [1, 2, 3]
    assert found["head"] == {"in_features": 9, "out_features": 5}


@pytest.mark.parametrize(("own", "told"), [
    ("extends: base.yaml\nsede: 1\n", "own.yaml: line 2: sede: .*base.yaml has no such key.* seed"),
    ("extends: base.yaml\nseed: 1\nwholly_other: 1\n", r"own.yaml: line 3: wholly_other: .*in `adds`"),
    ("extends: base.yaml\nplain:\n    on: 1\n", r"own.yaml: line 3: plain.on: .*did you mean one"),
    ("extends: base.yaml\nhead:\n    in_feature: 1\n", r"own.yaml: line 3: head.in_feature: .*in_features"),
    ("extends: base.yaml\nhead: {in_feature: 1}\n", r"own.yaml: line 2: head.in_feature: .*in_features"),
    ("extends: base.yaml\nadds: [seed]\nseed: 1\n", "own.yaml: line 2: adds: seed: .*has that key"),
    ("extends: base.yaml\nadds: [a.b]\n", r"own.yaml: line 2: adds: a.b: no such key in this file"),
    ("extends: base.yaml\nadds: a\na: 1\n", "own.yaml: line 2: adds: a list"),
    ("extends: base.yaml\nseed: 1\nseed: 2\n", "own.yaml: line 3: seed stands on line 2, too"),
    ("extends: base.yaml\n? seed\n: 1\n", "own.yaml: line 2: a plain key"),
    ("seed: 1\nextends: nowhere.yaml\n", "own.yaml: line 2: extends nowhere.yaml: no such file"),
    ("extends: own.yaml\nseed: 1\n", "own.yaml: line 1: extends own.yaml: a circle"),
    ("seed: 1\nextends: [base.yaml]\n", "own.yaml: line 2: extends: the path of one YAML"),
    ("extends:\nseed: 1\n", "own.yaml: line 1: extends: the path of one YAML"),
    ("extends: .\n", "is a folder"), ("extends: pipe\n", "a pipe"), ("extends: giant\n", "bytes: over"),
    ("extends: deep\n", "deep: .*nested over"), ("extends: broken\n", "broken: .*line 2"),
    ("extends: list\n", "list: not a mapping"), ("extends: flow\n", "flow: .*keys on their own lines"),
    ("extends: binary\n", "binary: line 1 is not UTF-8"), ("extends: empty\n", "empty: not a mapping"),
    ("extends: base.yaml\nweights: {a: 1,\n    b: 2}\n", "own.yaml: line 2: weights: braces that end"),
])  # fmt: skip
def test_what_is_wrong_is_refused_with_file_and_line(own, told, files, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "giant", "wb") as file:
        file.truncate(65 << 20)
    for name, text in (("deep", "a: " + "[" * 200), ("broken", "a: 1\n b: [\n"), ("list", "- a\n"),
                       ("flow", "{seed: 1}\n"), ("empty", "")):  # fmt: skip
        (tmp_path / name).write_text(text)
    (tmp_path / "binary").write_bytes(b"a: \xff\xfe\n")
    path = files(own=own)
    with pytest.raises(UsageError, match=told):
        whole(path)
    with pytest.raises(UsageError, match=told):
        parse([str(path)])


def test_a_circle_of_three_is_refused_where_it_closes(files):
    path = files(a="extends: b.yaml\n", b="x: 1\nextends: c.yaml\n", c="extends: a.yaml\n")
    with pytest.raises(UsageError, match=r"c.yaml: line 1: extends a.yaml: a circle"):
        whole(path)


def test_inherited_keys_are_overridden_and_checked_on_the_command_line(files):
    path = files(own="extends: base.yaml\nrate: 0.2\n")
    words = ["--folder", "f", "--seed", "5", "--head={out_features: 9}"]
    found = plain_values(resolve(path, parse([str(path), *words])[2]))
    assert found["seed"] == 5 and found["head"] == {"in_features": 3, "out_features": 9}
    assert found["rate"] == 0.2 and found["prepare"]["data_folder"] == "f" and "extends" not in found
    for wrong, told in ((["--sede", "5"], "did you mean --seed"), (["--seed", "x"], "a number"),
                        ([], "--folder is missing: .*own.yaml"), (["--extends", "x"], "no such option"),
                        (["--head={out_feature: 9}"], "did you mean out_features")):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            parse([str(path), *(words[:2] if wrong else []), *wrong])


def test_the_command_prints_one_yaml_that_says_all(files, tmp_path, capsys):
    (tmp_path / "shape.yaml").write_text("# Its shape.\n!new:torch.nn.Linear\nin_features: 3 # few\n")
    own = "extends: base.yaml\nadds: [shape]\nshape: !include:shape.yaml # ours\n    out_features: 9\n"
    path = files(own=own)
    assert run(["yaml", str(path), "--rate", "0.3", "--weights={b: 5}", "--folder", "my data"]) == 0
    printed = capsys.readouterr().out
    assert "\nrate: 0.3\n" in printed and "    b: 5\n" in printed and "\nfolder: my data\n" in printed
    assert "\nshape: !new:torch.nn.Linear # ours\n    in_features: 3 # few\n    out_features: 9\n" in printed
    assert "extends" not in printed and "include" not in printed and "!ref <folder>" in printed
    for words, told in ((["--rat", "1"], "did you mean --rate"), (["--rate", "x"], "a number"),
                        (["--device", "cpu"], "of a run"), (["x"], "without its option")):  # fmt: skip
        assert run(["yaml", str(path), *words]) == 2 and told in capsys.readouterr().err
    assert run(["yaml", str(tmp_path / "no.yaml")]) == 2 and "no.yaml" in capsys.readouterr().err


def test_another_base_is_another_fingerprint_of_a_grids_step(files, tmp_path):
    path = files(own="extends: base.yaml\nrate: 0.2\n")
    (tmp_path / "train.py").write_text("")
    words = [str(tmp_path / "train.py"), str(path), "--folder", "f"]
    first = fingerprint(words)
    assert fingerprint(words) == first
    (tmp_path / "base.yaml").write_text(BASE.replace("two: 2", "two: 3"))
    assert changed_parts(first, fingerprint(words)) == ["YAML"]


def test_the_example_for_contributors_is_a_model(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    mini = ROOT / "recipes/pretraining/wav2vec2/hparams/mini.yaml"
    (tmp_path / "half.yaml").write_text(text.replace("mini.yaml\n\n", f"{mini}\n\n"))
    found = plain_values(resolve(tmp_path / "half.yaml", {"data_folder": "D"}))
    assert found["config"]["hidden_size"] == 128 and found["config"]["num_hidden_layers"] == 6
    assert found["number_of_updates"] == 2000 and found["seed"] == 1234


def test_random_changes_of_values_are_found_again(files):
    """A variant that says some of the keys anew has those values, and the base's for all the others"""
    draw = random.Random(1)
    for _ in range(30):
        base = {f"k{n}": tree(draw, 3) for n in range(6)}
        own = changed(draw, base)
        if not own:
            continue
        path = files(own=f"extends: base.yaml\n{dumped(own)}", base=dumped(base))
        assert YAML(typ="safe").load(whole(path)) == updated(base, own)


def tree(draw, depth):
    kind = draw.choice(["number", "text", "list", "mapping", "mapping"] if depth else ["number"])
    if kind == "mapping":
        return {f"m{n}": tree(draw, depth - 1) for n in range(draw.randint(1, 3))}
    return {"number": draw.random(), "text": "a # b: 'c'\n\nd\n", "list": [{"x": 1}, [2, "# no"]]}[kind]


def changed(draw, old):
    kept = {key: value for key, value in old.items() if draw.random() < 0.5}
    return {
        k: changed(draw, v) or v if isinstance(v, dict) else draw.choice([0, "x\n# y\n", [1]])
        for k, v in kept.items()
    }


def updated(old, new):
    both = {key: updated(old[key], value) if isinstance(value, dict) else value for key, value in new.items()}
    return {**old, **both}


def dumped(value):
    text = io.StringIO()
    YAML().dump(value, text)
    return text.getvalue()
