"""`visreg predict`: what is written is what the task predicts, in the pixels of the files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_config

from visreg.build import build_runner
from visreg.checkpoint import load, newest, save
from visreg.cli import main
from visreg.datasets.image import read_image, read_mask
from visreg.errors import ConfigError
from visreg.predict import predict_files
from visreg.predictor import Predictor
from visreg.registry import DATASETS

SCENES = {"type": "ShapeScenes", "size": 8, "image_size": 32, "train": False}
BOXES = {"dataset": {**SCENES, "targets": ["boxes"]}, "batch_size": 4}
RESIZE = {"type": "Resize", "size": [16, 16]}
MASKS = {"dataset": {**SCENES, "targets": ["mask"]}, "batch_size": 4}


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code


def trained(folder, **sections):
    """Return the folder of a run of a few steps."""
    sections = {"default_hooks": [{"type": "Checkpoint"}], **sections}
    values = tiny_config(**sections, run={"epochs": None, "steps": 2, "work_dir": str(folder)})
    build_runner(values).train()
    return folder


@pytest.fixture(scope="module", name="classifier")
def classifier_fixture(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("classifier"), hooks=[{"type": "EMA", "decay": 0.5}])


@pytest.fixture(scope="module", name="detector")
def detector_fixture(tmp_path_factory):
    model = {"type": "YOLO", "num_classes": 7, "size": "n", "strides": [4, 8, 16]}
    metrics = [{"type": "MeanAveragePrecision"}]
    task, loss = {"type": "Detection", "min_score": 0.0, "max_objects": 5}, {"type": "YOLOLoss"}
    return trained(
        tmp_path_factory.mktemp("detector"), task=task, model=model, loss=loss, metrics=metrics, train=BOXES, val=BOXES
    )


@pytest.fixture(scope="module", name="segmenter")
def segmenter_fixture(tmp_path_factory):
    model = {"type": "UNet", "num_classes": 8, "width": 4, "depth": 1}
    task = {"type": "SemanticSegmentation"}
    metrics = [{"type": "PixelAccuracy"}]
    return trained(
        tmp_path_factory.mktemp("segmenter"), task=task, model=model, metrics=metrics, train=MASKS, val=MASKS
    )


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Pictures in folders, of which two have one name and one is damaged."""
    monkeypatch.chdir(tmp_path)
    dataset = DATASETS.build(SCENES)
    for number, name in enumerate(("a.png", "b.png", "deep/a.png")):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset[number]["image"].permute(1, 2, 0).numpy()).save(Path("photos", name))
    return Path("photos")


def results(folder):
    found = json.loads((folder / "predictions.json").read_text())
    for row in found["images"]:
        if "error" not in row:
            with Image.open(folder / row["picture"]) as drawn:
                assert drawn.mode == "RGB"
    return found


def task_of(run_folder, ema=False):
    """Return the task of a checkpoint, loaded by hand."""
    state = load(newest(run_folder / "checkpoints")[0])
    task = build_runner(json.loads(state["config"])).task.eval()
    task.load_state_dict(state["hooks"][0]["state"]["average"] if ema else state["task"])
    return task.requires_grad_(False)


def test_classes_are_those_that_the_task_predicts_with_averaged_weights(classifier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = DATASETS.build({"type": "Digits", "train": False, "size": 16})
    digits.open()
    for number in range(3):
        Image.fromarray(digits[number]["image"][0].numpy()).save(f"{number}.png")
    assert run("predict", classifier, "*.png", "--out", "out", "--top", 3, "--batch-size", 2) == 0
    found = results(Path("out"))
    assert (found["step"], found["threshold"]) == (2, 0.3)
    images = torch.stack([digits[number]["image"] for number in range(3)])
    wanted = task_of(classifier, ema=True).predict({"image": images})
    unwanted = task_of(classifier).predict({"image": images})
    assert not torch.allclose(wanted["scores"], unwanted["scores"], atol=1e-4)
    for row, scores in zip(found["images"], wanted["scores"], strict=True):
        best = scores.argsort(descending=True)[:3].tolist()
        assert row["label"] == {"label": best[0], "name": str(best[0])}
        assert [each["label"] for each in row["classes"]] == best
        assert [each["score"] for each in row["classes"]] == pytest.approx(scores[best].tolist(), abs=1e-5)
        assert (row["width"], row["height"]) == (16, 16)


def test_objects_are_those_that_the_task_predicts(detector, photos):
    assert run("predict", detector, photos, "--out", "out", "--threshold", 0) == 0
    found = results(Path("out"))
    assert [row["file"] for row in found["images"]] == ["photos/a.png", "photos/b.png", "photos/deep/a.png"]
    assert [row["picture"] for row in found["images"]] == ["a.png", "b.png", "a-2.png"]
    images = torch.stack([read_image(row["file"]) for row in found["images"]])
    wanted = task_of(detector).predict({"image": images})
    for place, row in enumerate(found["images"]):
        objects = row["objects"]
        assert len(objects) == len(wanted["boxes"][place]) == 5
        assert [each["label"] for each in objects] == wanted["labels"][place].tolist()
        assert [each["score"] for each in objects] == pytest.approx(wanted["scores"][place].tolist(), abs=1e-5)
        assert torch.allclose(torch.tensor([each["box"] for each in objects]), wanted["boxes"][place], atol=0.01)
        assert objects[0]["name"] == ("circle", "ring", "square", "cross", "star", "triangle up", "triangle down")[
            objects[0]["label"]
        ]  # fmt: skip
    assert run("predict", detector, photos, "--out", "out", "--threshold", 1) == 0
    assert all(row["objects"] == [] for row in results(Path("out"))["images"])


def test_boxes_are_in_the_pixels_of_the_file_and_not_of_what_the_model_saw(detector, tmp_path, monkeypatch):
    """The same scene in four times the size: the same boxes four times as large."""
    monkeypatch.chdir(tmp_path)
    image = Image.fromarray(DATASETS.build(SCENES)[0]["image"].permute(1, 2, 0).numpy())
    image.save("small.png")
    image.resize((128, 128), Image.Resampling.NEAREST).save("large.png")
    resize = 'val.transforms=[dict(type="Resize", size=[32, 32], interpolation="nearest")]'
    assert run("predict", detector, "small.png", "large.png", "--threshold", 0, "--out", "o", "--set", resize) == 0
    small, large = results(Path("o"))["images"]
    assert torch.allclose(
        *(torch.tensor([each["box"] for each in row["objects"]]) * scale for row, scale in ((small, 4), (large, 1))),
        atol=0.05,
    )
    assert [each["score"] for each in small["objects"]] == pytest.approx([each["score"] for each in large["objects"]])


def test_a_map_is_as_large_as_its_file_and_says_what_was_not_seen(segmenter, photos):
    cut = 'val.transforms=[dict(type="CenterCrop", size=[16, 24])]'
    assert run("predict", segmenter, photos / "a.png", "--out", "whole") == 0
    assert run("predict", segmenter, photos / "a.png", "--out", "cut", "--set", cut) == 0
    image = read_image(photos / "a.png")
    wanted = task_of(segmenter).predict({"image": image[None]})["mask"][0]
    part = task_of(segmenter).predict({"image": image[None, :, 8:24, 4:28]})["mask"][0]
    (row,) = results(Path("whole"))["images"]
    assert torch.equal(read_mask(Path("whole", row["mask"])), wanted)
    assert {each["label"]: each["pixels"] for each in row["areas"]} == dict(
        zip(*map(torch.Tensor.tolist, wanted.unique(return_counts=True)), strict=True)
    )
    assert "seen" not in row
    (row,) = results(Path("cut"))["images"]
    mask = read_mask(Path("cut", row["mask"]))
    assert row["seen"] == [4, 8, 28, 24]
    assert torch.equal(mask[8:24, 4:28], part)
    mask[8:24, 4:28] = 255
    assert (mask == 255).all()


def test_what_cannot_be_put_back_is_refused_with_advice(segmenter, photos, capsys):
    turn = 'val.transforms=[dict(type="RandomRotation", degrees=[45, 45])]'
    assert run("predict", segmenter, photos, "--out", "out", "--set", turn) == 2
    assert "val.transforms: what they do to the place of things cannot be undone" in capsys.readouterr().err


def test_an_image_of_odd_size_does_not_keep_the_others_from_being_done(segmenter, photos):
    """Where a crop shows too little of one to tell where it is, that one is named."""
    for name, size in (("dot", (1, 1)), ("line", (1, 50)), ("long", (4000, 32))):
        Image.new("RGB", size).save(photos / f"{name}.png")
    assert run("predict", segmenter, photos, "--out", "all", "--set", f"val.transforms=[{RESIZE}]") == 0
    rows = {Path(row["file"]).name: row for row in results(Path("all"))["images"]}
    assert read_mask(Path("all", rows["dot.png"]["mask"])).shape == (1, 1)
    assert read_mask(Path("all", rows["line.png"]["mask"])).shape == (50, 1)
    cut = 'val.transforms=[dict(type="CenterCrop", size=32)]'
    assert run("predict", segmenter, photos, "--out", "out", "--set", cut) == 3
    rows = {Path(row["file"]).name: row for row in results(Path("out"))["images"]}
    assert [name for name, row in rows.items() if "error" in row] == ["long.png"]
    assert "in an image of 32×4000, what they do to the place of things cannot be undone" in rows["long.png"]["error"]


def test_any_image_file_can_be_given(detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    for mode in ("RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I;16"):
        image = (
            Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
            if mode == "I;16"
            else Image.fromarray(pixels).convert(mode)
        )
        image.save(f"{mode.replace(';', '')}.{'tiff' if mode == 'CMYK' else 'png'}")
    Image.fromarray(pixels[:, :16, :3]).save("turned.jpg", exif=_turned())
    assert run("predict", detector, ".", "--out", "boxes") == 0
    rows = results(Path("boxes"))["images"]
    assert len(rows) == 9
    assert next((row["width"], row["height"]) for row in rows if row["file"].endswith("turned.jpg")) == (32, 16)


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    return exif


def test_damaged_files_are_named_and_the_others_done(detector, photos, capsys):
    Path("photos/c.png").write_bytes(b"no image")
    Path("photos/b.png").write_bytes(Path("photos/b.png").read_bytes()[:200])
    Image.new("RGB", (31, 32)).save("photos/odd.png")
    assert run("predict", detector, photos, "--out", "out") == 3
    rows = {Path(row["file"]).name: row for row in results(Path("out"))["images"] if "error" in row}
    assert rows.keys() == {"b.png", "c.png", "odd.png"}
    assert "cannot be read as an image" in rows["c.png"]["error"]
    assert "the model takes no image of 32×31" in rows["odd.png"]["error"]
    assert '--set \'val.transforms=[{"type": "Resize", "size": [32, 32]}]\'' in rows["odd.png"]["error"]
    captured = capsys.readouterr()
    assert "2 of 5 images done" in captured.out
    assert "error: 3 of 5 images cannot be" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.png"], 3, "nowhere.png: no such file or folder"),
        (["photos", "--threshold", "2"], 2, "expected a number from 0 to 1, got '2'"),
        (["photos", "--batch-size", "0"], 2, "expected a number from 1, got '0'"),
        (["photos", "--split", "test"], 2, "test: the config has no section 'test'"),
        (["photos", "--device", "gpu"], 2, "run.device"),
        (["photos", "--set", "model.width=3"], 4, "the checkpoint is of another model"),
        (["photos", "--out", "photos/a.png"], 6, "photos/a.png: cannot write the predictions"),
    ],
)
def test_a_mistake_has_one_message_and_its_exit_code(segmenter, photos, capsys, words, code, message):
    assert run("predict", segmenter, *words, *(["--out", "out"] if "--out" not in words else [])) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_results_beside_the_images_replace_none_of_them(segmenter, photos):
    before = {path: path.read_bytes() for path in photos.glob("*.png")}
    assert run("predict", segmenter, "photos/a.png", "photos/b.png", "--out", photos) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in photos.glob("a*.png")} == {"a.png", "a-2.png", "a-2.mask.png"}


def test_results_go_into_the_runs_folder_and_are_no_images_later(segmenter, photos):
    shutil.copytree(segmenter, "photos/run")
    for _ in range(2):
        assert run("predict", newest(Path("photos/run/checkpoints"))[0], photos) == 0
        assert len(results(Path("photos/run/predictions"))["images"]) == 3


def test_neither_the_data_nor_the_newest_state_is_needed(classifier, photos):
    """A checkpoint of before the names of all classes, of data that is nowhere, with a model for grey images."""
    state = load(newest(classifier / "checkpoints")[0])
    config = json.loads(state["config"])
    data = {
        "dataset": {"type": "ImageFolder", "root": "nowhere", "channels": 1, "size": 40},
        "batch_size": 2,
        "transforms": [RESIZE],
    }
    del state["class_names"]
    save(
        {**state, "config": json.dumps({**config, "train": data, "val": data})},
        Path("old.pt"),
    )
    assert run("predict", "old.pt", photos, "--out", "out") == 0
    assert {row["label"]["name"] for row in results(Path("out"))["images"]} <= set("0123456789")


def test_predictions_of_several_heads(segmenter, photos):
    """What a task predicts by head is drawn and written by head."""
    predictor = Predictor.of(segmenter)
    single = predictor.runner.task.predict

    def predict(batch):
        count = len(batch["image"])
        digit = {"label": torch.zeros(count, dtype=torch.int64), "scores": torch.eye(8)[:count]}
        return {"seg": single(batch), "digit": digit}

    predictor.runner.task.predict = predict
    assert predict_files(predictor, [photos / "a.png"], Path("out")) == []
    (row,) = results(Path("out"))["images"]
    assert row["heads"].keys() == {"seg", "digit"}
    assert read_mask(Path("out", row["heads"]["seg"]["mask"])).shape == (32, 32)
    assert row["heads"]["digit"]["classes"][0] == {"label": 0, "name": "background", "score": 1.0}


def test_a_transform_that_needs_more_than_an_image_is_named(segmenter, photos):
    class NeedsMask:
        def __call__(self, sample):
            return {**sample, "mask": sample["mask"] + 0}

    predictor = Predictor.of(segmenter)
    predictor.transforms = [NeedsMask()]
    with pytest.raises(ConfigError, match=r"val.transforms: one needs the key 'mask' of a sample"):
        list(predictor.seen([photos / "a.png"]))


def test_batches_are_of_one_size_and_no_image_is_left_out(detector, tmp_path):
    files = []
    for number in range(11):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (32, 32 + 16 * (number % 3))).save(files[-1])
    groups = list(Predictor.of(detector).groups(files, 3))
    assert sorted(seen.place for group in groups for seen in group) == list(range(11))
    assert all(len({seen.image.shape for seen in group}) == 1 and len(group) <= 3 for group in groups)
