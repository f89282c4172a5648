"""`visreg browse`: pages that hold together, of the very samples that training sees."""

from __future__ import annotations

import copy
import logging
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny_config

from visreg import DATASETS
from visreg.browse import browse
from visreg.build import build_runner
from visreg.cli import main
from visreg.config import config_from
from visreg.data import DataInfo, Dataset
from visreg.datasets.shapes import ShapeScenes
from visreg.errors import ConfigError, DataError
from visreg.pages import Item, article, page
from visreg.samples import Samples
from visreg.view import build_view, look

FLIP = [{"type": "RandomHorizontalFlip"}, {"type": "RandomCrop", "size": 32, "padding": 8}]
SCENES = {"type": "ShapeScenes", "size": 24, "image_size": 32, "targets": ["mask"]}


def config(transforms=FLIP, **train):
    section = {"dataset": SCENES, "batch_size": 5, "transforms": transforms, **train}
    return config_from(tiny_config(
        task={"type": "SemanticSegmentation"}, model={"type": "UNet", "num_classes": 8, "width": 4, "depth": 1},
        metrics=[{"type": "PixelAccuracy"}], train=section,
        val={"dataset": {**SCENES, "train": False}, "batch_size": 4}, run={"seed": 11},
    ))  # fmt: skip


class Reader(HTMLParser):
    """Notes what a page refers to, its text, and that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.tags, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(file):
    """Return a page, whose every reference is a file beside it."""
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    assert reader.open == []
    assert "script" not in reader.tags
    for link in reader.links:
        assert "://" not in link
        assert (file.parent / link).is_file(), link
    return reader


def test_a_sample_of_an_epoch_is_the_very_one_that_training_sees(apart):
    values = config()
    chosen = torch.tensor([1, 7, 20])
    shown = {each.index: each for each in look(build_view(values, "train", lambda size: chosen), 0, epochs=3, seed=11)}
    assert shown.keys() == {1, 7, 20}
    loader = build_runner(copy.deepcopy(values)).train_loader
    seen = 0
    for epoch in range(3):
        for batch in loader.epoch(epoch):
            for place, index in enumerate(batch["index"].tolist()):
                if index in shown:
                    version = shown[index].versions[1 + epoch]
                    assert version.title == f"epoch {epoch + 1}"
                    assert torch.equal(version.sample["image"], batch["image"][place])
                    assert torch.equal(version.sample["mask"], batch["mask"][place])
                    seen += 1
    assert seen == 9
    raw = DATASETS.build(SCENES)
    assert all(torch.equal(each.versions[0].sample["image"], raw[index]["image"]) for index, each in shown.items())


def test_only_what_is_shown_is_read(monkeypatch):
    read = []
    get = ShapeScenes.__getitem__
    monkeypatch.setattr(ShapeScenes, "__getitem__", lambda self, index: read.append(index) or get(self, index))
    list(look(build_view(config(in_memory=True), "train", lambda size: torch.tensor([1, 7])), 0, epochs=2, seed=11))
    assert set(read) == {1, 7}


def test_the_pages_hold_together_and_say_what_there_is(tmp_path):
    first = browse(config(), out=tmp_path, count=4, epochs=2)
    found = read(first)
    assert found.tags.count("article") == 4
    assert found.tags.count("img") == 12
    for text in ("ShapeScenes, 24 samples, of which 4 are shown", "RandomCrop(size=32, padding=8)", "triangle down"):
        assert text in found.text
    for link in found.links:
        with Image.open(tmp_path / link) as picture:
            assert max(picture.size) >= 384


def test_what_is_drawn_depends_on_the_seed_alone(tmp_path):
    def files(name, **options):
        browse(config(), out=tmp_path / name, count=3, **options)
        return {path.name: path.read_bytes() for path in (tmp_path / name / "pictures").iterdir()}

    one = files("one")
    torch.manual_seed(5)
    assert files("two") == one
    assert files("three", seed=1).keys() != one.keys()


def test_what_nothing_is_done_to_is_shown_once(tmp_path):
    found = read(browse(config([]), "val", tmp_path, count=3))
    assert found.tags.count("img") == 3
    assert "as the model sees it, in every epoch" in found.text


def test_chosen_samples_are_shown_and_others_named(tmp_path):
    found = read(browse(config(), out=tmp_path, indices=[9, 2, 9], epochs=1))
    assert [f"sample {index}" in found.text for index in (9, 2, 0)] == [True, True, False]
    assert found.tags.count("article") == 2
    with pytest.raises(DataError, match="train: there is no sample 24; there are 24, counted from 0"):
        browse(config(), out=tmp_path, indices=[24])
    with pytest.raises(ConfigError, match="the config has no section 'test'"):
        browse(config(), "test", tmp_path)


def test_many_samples_are_spread_over_pages(tmp_path, monkeypatch):
    monkeypatch.setattr("visreg.browse.PER_PAGE", 4)
    read(browse(config([]), out=tmp_path, count=10, epochs=1))
    pages = sorted(path.name for path in tmp_path.glob("*.html"))
    assert pages == ["index.html", "page-2.html", "page-3.html"]
    assert [read(tmp_path / name).tags.count("article") for name in pages] == [4, 4, 2]


def test_a_batch_is_shown_as_the_model_gets_it(tmp_path):
    digits = {"dataset": {"type": "Digits", "train": False, "size": 16}, "batch_size": 100}
    mix = [{"type": "ToDtype", "dtype": "float32", "scale": True}, {"type": "MixUp", "num_classes": 10}]
    values = config_from(tiny_config(train={**digits, "batch_transforms": mix}))
    found = read(browse(values, out=tmp_path, count=6, epochs=1))
    assert "A batch, after batch_transforms" in found.text
    assert sum("batch-" in link for link in found.links) == 6
    assert "Classes of all images" in found.text


def test_damaged_samples_are_shown_as_such(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.ERROR)
    monkeypatch.chdir(tmp_path)
    for name in ("<script>alert(1)<", "b&b"):
        Path("images", name).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (16, 16), 99).save(Path("images", name, f"{number}.png"))
    Path("images", "b&b", "broken.png").write_bytes(b"no image")
    folder = {"dataset": {"type": "ImageFolder", "root": "images", "channels": 1, "size": 16}, "batch_size": 2}
    values = config_from(tiny_config(model={"num_classes": 2}, train={**folder, "on_bad_sample": "skip"}, val=folder))
    found = read(browse(values, out=Path("out")))
    assert "cannot be read as an image" in found.text
    assert "<script>alert(1)<" in found.text  # as text
    assert "wrong1 of these" in found.text
    assert found.tags.count("img") == 4


def test_what_is_wrong_with_a_sample_and_what_a_transform_raises_is_said(tmp_path):
    def broken(sample):
        raise RuntimeError("no luck today")

    class Wrong(Dataset):
        info = DataInfo(name="wrong", classes=("cat",))

        def open(self): ...

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"image": torch.zeros(3, 8, 8, dtype=torch.uint8), "label": torch.tensor(index)}

    view = build_view(config([], in_memory=False), "train", lambda size: torch.tensor([0, 1]))
    object.__setattr__(view, "dataset", Wrong())
    view.each._samples = Samples(dataset=Wrong(), transforms=[*view.each.transforms, broken], seed=0)
    right, wrong = look(view, 2, epochs=1, seed=0)
    assert right.problems == ["RuntimeError: no luck today"]
    assert wrong.problems[0] == "label: 1 is not below 1, the number of classes"


def test_streams_are_shown_from_their_start(tmp_path):
    tmp_path.joinpath("stream.py").write_text(
        "import torch\nfrom visreg import DATASETS\n@DATASETS.register\nclass Steps:\n"
        "    def __iter__(self):\n        return self.seek(0) or iter(self.rows())\n"
        "    def seek(self, position):\n        self.position = position\n"
        "    def rows(self):\n        for number in range(self.position, 100):\n"
        "            image = torch.full((1, 16, 16), number, dtype=torch.uint8)\n"
        "            yield {'image': image, 'label': torch.tensor(number % 10)}\n"
    )
    data = {"dataset": {"type": "Steps"}, "batch_size": 4, "samples_per_epoch": 8}
    values = config_from(tiny_config(train=data))
    found = read(browse(values, out=tmp_path / "out", count=3, plugin_files=[tmp_path / "stream.py"]))
    assert [f"sample {number}" in found.text for number in range(4)] == [True, True, True, False]


def test_text_is_escaped():
    item = Item('<b>"', "'&", "<i>", ["<script>"], [])
    text = page("</title>", 1, 1, [article(item)])
    for raw in ("<b>", "<i>", "<script>", "</title></title>"):
        assert raw not in text
    reader = Reader()
    reader.feed(text)
    assert "<script>" in reader.text


def test_the_command(small, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["browse", str(small), "--count", "2", "--split", "val"])
    assert caught.value.code == 0
    file = small.parent / "work" / "browse" / "val" / "index.html"
    assert capsys.readouterr().out.endswith(f"wrote {file}\n")
    read(file)
    with pytest.raises(SystemExit) as caught:
        main(["browse", str(small), "--out", str(small)])
    assert caught.value.code == 6
    assert "cannot write the pages" in capsys.readouterr().err
