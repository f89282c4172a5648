"""Frames out of video files: the right ones, with the right pixels, and files that are no good."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import wave

import pytest
import torch
from videos import FORMATS, decoded, pictures, write_video

from visreg.datasets import video as module
from visreg.datasets.video import import_av, read_video
from visreg.errors import DataError

av = pytest.importorskip("av")


def take(*numbers):
    return lambda times: numbers


@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_those_of_decoding_all(name, tmp_path):
    path = write_video(tmp_path / name)
    whole = decoded(path)
    assert len(whole) == 30
    for begin in (0, 1, 11, 12, 13, 20, 27):
        numbers = [begin, begin + 1, begin + 1, min(begin + 5, 29)]
        assert torch.equal(read_video(path, take(*numbers)), whole[numbers]), begin
    assert torch.equal(read_video(path, take(20, 3, 29)), whole[[20, 3, 29]])


def test_no_more_is_decoded_than_it_takes(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.h264.mp4", 120)
    seen = []
    picture = module._decoded

    def counted(*arguments):
        for frame in picture(*arguments):
            seen.append(frame.pts)
            yield frame

    monkeypatch.setattr(module, "_decoded", counted)
    read_video(path, take(100, 101))
    assert len(seen) <= 12


def test_times_are_those_at_which_frames_are_shown(tmp_path):
    shown = [0, 40, 50, 200, 230, 500, 520, 600]
    path = write_video(tmp_path / "variable.mp4", 8, milliseconds=shown)
    seen = []

    def look(times):
        seen.extend(times)
        return [0, 5]

    assert torch.equal(read_video(path, look), decoded(path)[[0, 5]])
    assert seen == pytest.approx([time / 1000 for time in shown], abs=1e-3)


def test_times_are_counted_where_the_file_has_none(tmp_path):
    path = write_video(tmp_path / "raw.h264", 10)
    seen = []
    read_video(path, lambda times: seen.extend(times) or [0])
    assert seen == pytest.approx([number / 25 for number in range(10)])


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_rotated_video_is_upright(degrees, tmp_path):
    upright = pictures(4)
    path = tmp_path / "rotated.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.height, stream.width = upright[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write rotated videos")
        stream.set_display_rotation(degrees)
        for pixels in upright:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        found = {frame.rotation for frame in container.decode(video=0)}
    assert len(found) == 1
    (angle,) = found
    assert abs(angle) == abs(degrees)
    clip, stored = read_video(path, take(0, 3)), decoded(path)[[0, 3]]
    turned = {90: stored.transpose(2, 3).flip(2), -90: stored.transpose(2, 3).flip(3), 180: stored.flip(2, 3)}
    assert torch.equal(clip, turned[angle] if abs(angle) == 90 else turned[180])


def write_sound(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def no_frames(path):
    """A file with a video stream that has nothing in it."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "bgr0"
        container.start_encoding()


BAD = {
    "nothing in it": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no video at all\n" * 100),
    "a playlist": lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
    "sound": write_sound,
    "no frames": no_frames,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "missing": lambda path: None,
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_video_is_named(kind, tmp_path):
    path = tmp_path / "bad.mp4"
    BAD[kind](path)
    with pytest.raises(DataError) as caught:
        read_video(path, take(0))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "vp9.webm", "open.mkv"])
def test_a_file_that_is_cut_short_is_named(name, tmp_path):
    path = write_video(tmp_path / name, 90)
    content = path.read_bytes()
    for share in (0.02, 0.3, 0.5):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=name):
            read_video(path, take(0))


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_named_or_survived_and_leaves_no_file_open(name, tmp_path):
    path = write_video(tmp_path / name)
    content, chance = path.read_bytes(), random.Random(name)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  names, of which one goes while they are listed
    said = []
    for attempt in range(24):
        damaged, place = bytearray(content), chance.randrange(len(content))
        if attempt % 3 == 0:
            damaged[place] ^= 1 << chance.randrange(8)
        elif attempt % 3 == 1:
            damaged[place : place + 64] = bytes(len(damaged[place : place + 64]))
        else:
            del damaged[place : place + chance.randrange(1, 1000)]
        path.write_bytes(damaged)
        try:
            clip = read_video(path, lambda times: range(0, len(times), 4))
            assert clip.dtype == torch.uint8
            assert clip.shape[1] == 3
        except DataError as error:
            said.append(str(error))
    assert all(text.startswith(f"{path}: ") for text in said)
    assert said or name in ("lossless.mkv", "windows.wmv", "vp9.webm")  # which tell little of damage
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_frames_of_unlike_sizes_are_named(tmp_path):
    path = tmp_path / "sizes.ts"
    parts = [write_video(tmp_path / f"{side}.ts", frames=pictures(5, side, side)).read_bytes() for side in (32, 64)]
    path.write_bytes(b"".join(parts))
    with pytest.raises(DataError, match=r"sizes\.ts: .*differ in size: 32×32 and 64×64|sizes\.ts: "):
        read_video(path, lambda times: range(len(times)))


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "h264.mp4", 3)
    monkeypatch.setattr(module, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(DataError, match=r"h264\.mp4: 48×64 is more than 3,071 pixels"):
        read_video(path, take(0))


def test_no_threads_are_started(tmp_path):
    write_video(tmp_path / "h264.mp4")
    code = (
        "import os, sys; from visreg.datasets.video import read_video; before = len(os.listdir('/proc/self/task'));"
        "read_video(sys.argv[1], lambda times: [3, 20]); print(len(os.listdir('/proc/self/task')) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "h264.mp4")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"


def test_a_name_of_any_bytes_is_read(tmp_path):
    path = write_video(tmp_path / "h264.mp4", 3)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff:http.mp4")
    os.rename(path, odd)  # noqa: PTH104  a name that is no text
    assert read_video(odd, take(0)).shape == (1, 3, 48, 64)


def test_without_pyav_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r'pip install "visreg\[video\]"'):
        import_av()
