"""The competition's own layout: written from a prepared data set, and read back."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from data_prep import cli, dataset, verify
from data_prep.sources import kaggle
from kaggle_submission.tools import cli as tools_cli
from kaggle_submission.tools import kaggle_tree
from local_scorer.models import nets

NET = nets.fresh_net(8, 16, seed=0).state_dict()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "original.pt"
    torch.save(NET, path)
    return path


@pytest.fixture
def tree(tiny_data, weights, tmp_path):
    return kaggle_tree.prepare(tiny_data, tmp_path / "tree", weights=weights)


def test_the_tree_is_laid_out_as_in_the_competition(tree, tiny_data):
    assert sorted(path.name for path in tree.iterdir()) == [
        "age_class_weights.json", "forget.csv", "images", "original_model.pth", "retain.csv", "validation.csv",
    ]  # fmt: skip
    data = dataset.load(tiny_data)
    for split, count in (("retain", 64), ("forget", 8), ("validation", 12)):
        rows = pd.read_csv(tree / f"{split}.csv")
        assert list(rows.columns) == ["person_id", "age_group", "age", "image_id"]
        assert len(rows) == count
        assert rows["age_group"].tolist() == data.labels(split).tolist()
    first = pd.read_csv(tree / "forget.csv").iloc[0]
    assert first["image_id"] == f"{first['person_id']}-0"
    with Image.open(tree / "images" / first["person_id"] / "0.png") as picture:
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture).transpose(2, 0, 1), data.images[data.rows("forget")[0]])
    assert len(list(tree.glob("images/*/*.png"))) == 64 + 8 + 12


def test_class_counts_are_of_the_training_pictures(tree, tiny_data):
    data = dataset.load(tiny_data)
    counts = json.loads((tree / "age_class_weights.json").read_text())
    train = np.concatenate([data.labels("retain"), data.labels("forget")])
    assert counts == {str(group): int((train == group).sum()) for group in range(8)}
    assert sum(counts.values()) == 72


def test_spare_outputs_have_a_count_that_can_be_divided_by(tiny_data, tmp_path):
    weights = {"fc.bias": torch.zeros(10)}
    tree = kaggle_tree.write(dataset.load(tiny_data), tmp_path / "tree", weights)
    counts = json.loads((tree / "age_class_weights.json").read_text())
    assert list(counts) == [str(group) for group in range(10)]
    assert counts["8"] == counts["9"] == 1


def test_the_original_is_the_one_given(tree):
    found = torch.load(tree / "original_model.pth", weights_only=True)
    assert found.keys() == NET.keys()
    assert all(torch.equal(found[name], NET[name]) for name in NET)


def test_the_original_is_trained_where_none_is_given(tiny_data, tmp_path):
    tree = kaggle_tree.prepare(tiny_data, tmp_path / "tree", width=16, outputs=10)
    found = torch.load(tree / "original_model.pth", weights_only=True)
    net = nets.resnet18(10, 16)
    net.load_state_dict(found)
    data = dataset.load(tiny_data)
    rows = np.sort(np.concatenate([data.rows("retain"), data.rows("forget")]))
    predicted = nets.predict_logits(net, torch.from_numpy(data.images[rows])).argmax(dim=1).numpy()
    assert (predicted == data.examples["age_group"].to_numpy()[rows]).mean() > 0.25  # a guess: 0.125


@pytest.mark.parametrize("with_test", [False, True])
def test_what_is_written_is_read_back(tiny_data, weights, tmp_path, with_test):
    tree = kaggle_tree.prepare(tiny_data, tmp_path / "tree", weights=weights, with_test=with_test)
    back = dataset.load(kaggle.prepare(tree, tmp_path / "back"))
    data = dataset.load(tiny_data)
    for split in dataset.SPLITS if with_test else dataset.SPLITS[:3]:
        np.testing.assert_array_equal(back.images[back.rows(split)], data.images[data.rows(split)])
        assert back.labels(split).tolist() == data.labels(split).tolist()
        theirs, ours = (each.examples.iloc[each.rows(split)] for each in (data, back))
        for column in ("person_id", "age"):
            assert ours[column].tolist() == theirs[column].tolist()
    assert len(back.rows("test")) == (24 if with_test else 0)
    assert back.class_names == [str(group) for group in range(8)]
    assert back.manifest["settings"] == {"size": 32, "forget_by": "person", "raw": False}
    assert verify.problems(back.folder) == []


def test_reading_twice_gives_the_same_bytes(tree, tmp_path):
    for name in ("a", "b"):
        kaggle.prepare(tree, tmp_path / name)
    for file in ("images.npy", "examples.csv", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_people_in_several_splits_are_found_and_noted(tree, tmp_path):
    retain = pd.read_csv(tree / "retain.csv")
    retain.iloc[11:].to_csv(tree / "retain.csv", index=False)
    retain.iloc[:5].to_csv(tree / "test.csv", index=False)
    retain.iloc[5:11].to_csv(tree / "forget.csv", index=False)
    back = dataset.load(kaggle.prepare(tree, tmp_path / "back"))
    assert back.manifest["settings"] == {"size": 32, "forget_by": "row", "raw": True}
    assert verify.problems(back.folder) == []


def write_prepared(out, names, people):
    n = len(names)
    split = (["retain"] * (n - 2)) + ["forget", "validation"]
    images = np.random.default_rng(0).integers(0, 255, (n, 3, 8, 8), dtype=np.uint8)
    examples = pd.DataFrame(
        {
            "image_id": names,
            "person_id": people,
            "age_group": [0, 1] * (n // 2),
            "age": -1,
            "split": split,
            "source": "x",
        }
    )
    return dataset.write(
        out, images=images, examples=examples, name="n", class_names=["a", "b"], settings={}, seed=0, sources={}
    )


@pytest.mark.parametrize(
    ("names", "people", "expected"),
    [
        (["A-1", "A-02", "B-x", "C-0"], ["A", "A", "B", "C"], ["A-1", "A-02", "B-x", "C-0"]),
        (["A-1", "q", "B-1", "C-0"], ["A", "A", "B", "C"], ["A-0", "A-1", "B-0", "C-0"]),
        (["a-1", "a-2", "b/1", "c 0"], ["a-1", "a-1", "b/1", "../c"], ["1-0", "1-1", "2-0", "3-0"]),
    ],
)
def test_names_that_do_not_fit_the_layout_are_numbered(names, people, expected, tmp_path):
    data = dataset.load(write_prepared(tmp_path / "data", names, people))
    tree = kaggle_tree.write(data, tmp_path / "tree", {})
    found = [
        name for split in kaggle_tree.SPLITS for name in pd.read_csv(tree / f"{split}.csv", dtype=str)["image_id"]
    ]
    assert found == expected
    assert all((tree / "images" / f"{name.replace('-', '/')}.png").is_file() for name in found)


def test_limits_take_the_first_pictures_of_a_split(tiny_data, tmp_path):
    data = dataset.load(tiny_data)
    tree = kaggle_tree.write(data, tmp_path / "tree", {}, limits={"retain": 5, "forget": 3})
    back = dataset.load(kaggle.prepare(tree, tmp_path / "back", classes=8))
    for split, count in (("retain", 5), ("forget", 3), ("validation", 12)):
        np.testing.assert_array_equal(back.images[back.rows(split)], data.images[data.rows(split)[:count]])


def test_a_picture_with_a_wrong_checksum_is_refused(tree, tmp_path):
    path = tree / "images" / "P01" / "1.png"
    data = bytearray(path.read_bytes())
    data[data.index(b"IEND") - 9] ^= 1  # within the checksum of the pixels, which alone would decode as before
    path.write_bytes(data)
    with pytest.raises(ValueError) as error:
        kaggle.prepare(tree, tmp_path / "back")
    assert str(error.value).startswith(f"{path} is not a whole PNG picture (")


def spoil_csv(change):
    def spoil(tree):
        rows = pd.read_csv(tree / "forget.csv", dtype=str)
        change(rows).to_csv(tree / "forget.csv", index=False)

    return spoil


def put(column, value):
    return spoil_csv(lambda rows: rows.assign(**{column: [value, *rows[column][1:]]}))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda tree: (tree / "forget.csv").unlink(), "{tree}/forget.csv does not exist. The layout has"),
        (spoil_csv(lambda rows: rows.drop(columns="age")), "{tree}/forget.csv has no column age."),
        (spoil_csv(lambda rows: rows[:0]), "{tree}/forget.csv has no rows."),
        (put("image_id", "P99"), "{tree}/forget.csv, line 2: image_id 'P99' is not of the form \"PERSON-N\"."),
        (put("image_id", "..-1"), "{tree}/forget.csv, line 2: image_id '..-1' is not of the form"),
        (put("image_id", "a/b-1"), "{tree}/forget.csv, line 2: image_id 'a/b-1' is not of the form"),
        (put("image_id", "P99-7"), "{tree}/images/P99/7.png does not exist. Replace the picture or delete"),
        (put("age_group", "-1"), "{tree}/forget.csv, line 2: age_group '-1' is not a whole number from 0."),
        (put("age", "old"), "{tree}/forget.csv, line 2: age 'old' is not a number of years."),
        (put("person_id", ""), "{tree}/forget.csv, line 2: person_id '' is not a name."),
        (
            lambda tree: next((tree / "images").glob("*/0.png")).write_bytes(b"no picture"),
            "{tree}/images/",
        ),
        (
            lambda tree: Image.new("RGB", (16, 16)).save(tree / "images" / "P01" / "1.png"),
            "{tree}/images/P01/1.png has 16 pixels a side, the first picture 32: all must be equal.",
        ),
        (
            lambda tree: Image.new("RGB", (32, 16)).save(tree / "images" / "P01" / "1.png"),
            "{tree}/images/P01/1.png has 32 x 16 pixels, expected a square of 8 to 1024.",
        ),
        (
            lambda tree: (tree / "validation.csv").write_bytes((tree / "retain.csv").read_bytes()),
            "The image_id P00-0 stands in two rows. Delete one.",
        ),
    ],
)
def test_each_fault_of_a_tree_gets_a_sentence(tree, spoil, sentence, tmp_path):
    spoil(tree)
    with pytest.raises(ValueError) as error:
        kaggle.prepare(tree, tmp_path / "back")
    assert str(error.value).startswith(sentence.format(tree=tree))
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--recipe", "slow"], "Unknown recipe 'slow': expected one of competition, report, quick."),
        (["--width", "17"], "--width must be one of 16, 32, 64, found 17."),
        (["--outputs", "7"], "--outputs must be at least 8, the number of classes; found 7."),
        (
            ["--weights", "{tmp}/none.pt"],
            "There is no file {tmp}/none.pt: name a state dict with --weights, or leave",
        ),
        (["--weights", "{tmp}/text.pt"], "{tmp}/text.pt is not a file that torch.save wrote"),
        (["--weights", "{weights}", "--outputs", "10"], "{weights} is a model with 8 outputs, expected 10."),
        (["--out", "{tmp}"], "{tmp} already holds other files; name a folder that does not exist yet with --out."),
    ],
)
def test_wrong_use_gets_a_sentence(options, sentence, tiny_data, weights, tmp_path, capsys):
    (tmp_path / "text.pt").write_text("text")
    places = {"tmp": tmp_path, "weights": weights}
    options = [option.format(**places) for option in options]
    code = tools_cli.main(["kaggle-tree", str(tiny_data), "--out", str(tmp_path / "tree"), *options])
    assert code == (1 if "is not a file that" in sentence else 2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {sentence.format(**places)}")
    assert not (tmp_path / "tree").exists()


def test_the_commands_say_what_they_did(tiny_data, weights, tmp_path, capsys):
    tree, back = tmp_path / "tree", tmp_path / "back"
    assert tools_cli.main(["kaggle-tree", str(tiny_data), "--out", str(tree), "--weights", str(weights)]) == 0
    assert capsys.readouterr().out == f"Wrote {tree}: forget 8, retain 64, validation 12 pictures.\n"
    assert cli.main(["kaggle", "--source", str(tree), "--out", str(back)]) == 0
    assert capsys.readouterr().out == (
        f"Prepared 84 pictures of 32 px, 8 classes, in {back}: retain 64, forget 8, validation 12, test 0.\n"
        "It has no test set: models can be trained and unlearned on it, but not scored.\n"
    )
    assert cli.main(["kaggle", "--source", str(tree), "--out", str(back), "--classes", "7"]) == 2
    assert capsys.readouterr().err == f"error: --classes 7 is too few: the age_group 7 occurs in {tree}.\n"
