"""Videos in folders of their classes: files, and folders of frames."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from PIL import Image
from tiny import tiny_config
from videos import decoded, write_frames, write_video

from visreg.build import build_runner
from visreg.datasets.video_folder import VideoFolder, read_frames, strided, timed
from visreg.errors import DataError
from visreg.samples import Samples


@pytest.fixture
def root(tmp_path):
    """Two classes with two videos of 12 frames each, whose pixels are their numbers; beside things that are none."""
    for split in ("train", "val"):
        for name in ("run", "walk"):
            for number in (9, 10):
                write_frames(tmp_path / "clips" / split / name / "deep" / f"v{number}")
    (tmp_path / "clips/train/run/notes.txt").write_text("no video")
    (tmp_path / "clips/train/.cache").mkdir()
    return tmp_path / "clips"


def opened(root, **options):
    dataset = VideoFolder(root=str(root), **options)
    dataset.open()
    return dataset


def numbers(clip):
    """Return which frames a clip is made of."""
    assert clip.dtype == torch.uint8
    assert (clip.amin((1, 2, 3)) == clip.amax((1, 2, 3))).all()
    return clip[:, 0, 0, 0].tolist()


def test_classes_are_folders_and_frames_go_by_number(root):
    dataset = opened(root, split="train", frames=12)
    assert dataset.info.classes == ("run", "walk")
    assert (dataset.info.keys, dataset.info.frames) == (("clip", "label"), 12)
    assert dataset.labels().tolist() == [0, 0, 1, 1]
    sample = dataset[2]
    assert sample.keys() == {"clip", "label"}
    assert sample["clip"].shape == (12, 3, 6, 8)
    assert numbers(sample["clip"]) == list(range(12))
    assert int(sample["label"]) == 1
    assert dataset.where(2) == str(root / "train/walk/deep/v10")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"frames": 4}, [4, 5, 6, 7]),
        ({"frames": 4, "stride": 3}, [1, 4, 7, 10]),
        ({"frames": 1}, [6]),
        ({"frames": 14}, [*range(12), 11, 11]),
        ({"frames": 3, "stride": 100}, [0, 11, 11]),
    ],
)
def test_the_clip_is_in_the_middle_and_a_short_video_ends_with_its_last_frame(options, expected, root):
    assert numbers(opened(root, split="val", **options)[0]["clip"]) == expected


@pytest.mark.parametrize("frames", [1, 3, 8])
@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_every_place_of_a_clip_is_drawn_and_none_reaches_out(count, stride, frames):
    room = max(0, count - 1 - (frames - 1) * stride)
    found = [strided(count, frames, stride, step / 1000) for step in range(1001)]
    assert {clip[0] for clip in found} == set(range(room + 1))
    for clip in found:
        assert clip == [min(clip[0] + number * stride, count - 1) for number in range(frames)]
    assert abs(strided(count, frames, stride, 0.5)[0] - room / 2) <= 0.5


def test_fps_takes_the_frame_that_is_shown_at_each_moment():
    steady = [number / 30 for number in range(60)]
    assert timed(steady, 4, 10.0, 0.0) == [0, 3, 6, 9]
    assert timed(steady, 4, 30.0, 1.0) == [56, 57, 58, 59]
    assert timed(steady, 3, 60.0, 0.0) == [0, 0, 1]
    uneven = [0.0, 0.5, 0.6, 2.0]
    assert timed(uneven, 5, 2.0, 0.0) == [0, 1, 2, 2, 3]
    assert timed(uneven, 3, 0.5, 0.5) == [0, 3, 3]
    assert timed([0.0], 3, 5.0, 0.7) == [0, 0, 0]


def test_a_random_start_depends_on_seed_epoch_and_index_alone(root):
    dataset = opened(root, split="train", frames=3, start="random")
    samples = Samples(dataset=dataset, transforms=[], seed=5)
    begins = [numbers(samples.sample((epoch, 1))["clip"])[0] for epoch in range(40)]
    torch.rand(7)
    assert [numbers(samples.sample((epoch, 1))["clip"])[0] for epoch in range(40)] == begins
    assert set(begins) == set(range(10))
    others = Samples(dataset=dataset, transforms=[], seed=6)
    assert [numbers(others.sample((epoch, 1))["clip"])[0] for epoch in range(40)] != begins


def test_files_and_folders_of_frames_stand_side_by_side(root):
    write_video(root / "val" / "run" / "film.mp4")
    dataset = opened(root, split="val", frames=4, stride=2)
    (index,) = [index for index in range(len(dataset)) if dataset.where(index).endswith("film.mp4")]
    assert torch.equal(dataset[index]["clip"], decoded(root / "val/run/film.mp4")[[12, 14, 16, 18]])
    assert int(dataset[index]["label"]) == 0


def test_fps_of_files(root, tmp_path):
    (tmp_path / "films" / "run").mkdir(parents=True)
    path = write_video(tmp_path / "films" / "run" / "film.mp4")  # 25 frames a second, the last of them at 1.16 s
    clip = opened(tmp_path / "films", frames=3, fps=5)[0]["clip"]  # from 0.38 to 0.78 s
    assert torch.equal(clip, decoded(path)[[9, 14, 19]])
    with pytest.raises(DataError, match="set stride instead"):
        opened(root, split="val", fps=5)


def test_a_listing_names_the_videos(root, tmp_path):
    (tmp_path / "trainlist01.txt").write_text("walk/deep/v9.avi 2\n\nrun/deep/v10.avi 1\n")
    dataset = opened(root, split="train", listing=str(tmp_path / "trainlist01.txt"))
    assert [dataset.where(index) for index in range(2)] == [
        str(root / "train" / name) for name in ("walk/deep/v9", "run/deep/v10")
    ]
    assert dataset.labels().tolist() == [1, 0]
    (tmp_path / "trainlist01.txt").write_text("run/deep/v8.avi\n")
    with pytest.raises(DataError, match=r"trainlist01\.txt: 1 videos that are not in .*: run/deep/v8"):
        opened(root, split="train", listing=str(tmp_path / "trainlist01.txt"))
    (tmp_path / "trainlist01.txt").write_text("\n")
    with pytest.raises(DataError, match="no videos in it"):
        opened(root, split="train", listing=str(tmp_path / "trainlist01.txt"))


def test_what_is_no_folder_of_videos_is_named(tmp_path):
    (tmp_path / "empty" / "run").mkdir(parents=True)
    with pytest.raises(DataError, match=r"run: no videos in it; expected files ending in \.3gp"):
        opened(tmp_path / "empty")
    write_frames(tmp_path / "flat" / "run")
    with pytest.raises(DataError, match="run: images in it; put the frames of each video into a folder"):
        opened(tmp_path / "flat")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frames": 0}, "'frames'"), ({"stride": 0}, "'stride'"), ({"fps": -1}, "'fps'"), ({"start": "end"}, "'start'"),
        ({"fps": 5, "stride": 2}, "give one of them"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        VideoFolder(root="videos", **options)


def test_frames_that_are_damaged_or_differ_in_size_are_named(root):
    folder = root / "train/run/deep/v9"
    Image.new("RGB", (9, 6)).save(folder / "frame3.png")
    with pytest.raises(DataError, match=r"v9: its frames differ in size: 6×8 and 6×9"):
        read_frames(folder, lambda times: [2, 3])
    assert numbers(read_frames(folder, lambda times: [2, 4])) == [2, 4]
    (folder / "frame3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"frame3\.png: cannot be read as an image"):
        read_frames(folder, lambda times: [3])


def test_files_need_pyav_and_frames_do_not(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    opened(root, split="val")
    (root / "val" / "run" / "film.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r'pip install "visreg\[video\]"'):
        opened(root, split="val")


def video_config(root, tmp_path, **section):
    data = {"batch_size": 2, "transforms": [{"type": "RandomCrop", "size": 4}], **section}
    dataset = {"type": "VideoFolder", "root": str(root), "frames": 4}
    return {
        **tiny_config(
            train={**data, "dataset": {**dataset, "split": "train", "start": "random"}},
            val={**data, "dataset": {**dataset, "split": "val"}, "on_bad_sample": "error"},
            run={"epochs": 2, "work_dir": str(tmp_path / "work")},
        ),
        "model": {"type": "VideoConvNet", "num_classes": 2, "width": 4},
    }


def test_workers_change_nothing_and_a_bad_video_is_skipped(root, tmp_path):
    (root / "train" / "walk" / "bad.mp4").write_bytes(b"no video")
    pytest.importorskip("av")
    seen = []
    for workers in (0, 2):
        runner = build_runner(video_config(root, tmp_path, workers=workers, on_bad_sample="skip"))
        seen.append([batch for epoch in (0, 1) for batch in runner.train_loader.epoch(epoch)])
        assert list(runner.train_loader.bad) == [2]
        assert "bad.mp4: cannot be read as a video" in runner.train_loader.bad[2]
    for one, other in zip(*seen, strict=True):
        assert one["clip"].shape == (len(one["label"]), 4, 3, 4, 4)
        assert torch.equal(one["clip"], other["clip"])
        assert torch.equal(one["label"], other["label"])
    assert not torch.equal(seen[0][0]["clip"], seen[0][-1]["clip"])


def test_a_run_on_videos_trains(root, tmp_path):
    runner = build_runner(video_config(root, tmp_path))
    before = [each.clone() for each in runner.task.parameters()]
    runner.train()
    assert 0 <= runner.scores["accuracy"] <= 1
    assert all(not torch.equal(*pair) for pair in zip(before, runner.task.parameters(), strict=True))
