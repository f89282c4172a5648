"""Small videos that the tests write, and what PyAV gives if it decodes all of one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

# Of each kind of file: the encoder, its pixels and its options. Some have frames that depend on later ones, some show
# frames before the key frame that was sent before them, and some keep no count, or no times.
FORMATS = {
    "h264.mp4": ("libx264", "yuv420p", {}),
    "open.mkv": ("libx264", "yuv420p", {"x264-params": "open-gop=1:keyint=12"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"cpu-used": "8"}),
    "motion.avi": ("mjpeg", "yuvj420p", {}),
    "lossless.mkv": ("ffv1", "bgr0", {}),
    "program.mpg": ("mpeg2video", "yuv420p", {}),
    "transport.ts": ("libx264", "yuv420p", {}),
    "windows.wmv": ("wmv2", "yuv420p", {}),
    "raw.h264": ("libx264", "yuv420p", {}),
}


def pictures(count: int = 30, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Return frames (H, W, 3) of which no two are alike."""
    y, x = np.mgrid[:height, :width]
    made = []
    for time in range(count):
        frame = np.stack([(x * 4 + time * 5) % 256, (y * 5 + time * 3) % 256, np.full_like(x, time * 8 % 256)], -1)
        frame[5:15, time * 2 % 50 : time * 2 % 50 + 10] = (255, 0, 128)
        made.append(frame.astype(np.uint8))
    return made


def write_video(
    path: Path, count: int = 30, milliseconds: Sequence[int] = (), frames: Sequence[np.ndarray] = ()
) -> Path:
    """Write a video of 25 frames a second, or with each shown at a time of its own; its name says how."""
    av = pytest.importorskip("av")
    codec, pixels, options = next((value for name, value in FORMATS.items() if path.name.endswith(name)), (None,) * 3)
    codec, pixels, options = (codec, pixels, options) if codec else FORMATS["h264.mp4"]
    frames = frames or pictures(count)
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = 12
        if milliseconds:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixel in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixel, format="rgb24")
            if milliseconds:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded(path: Path) -> Tensor:
    """Return all frames of a video, uint8 (T, 3, H, W), as PyAV gives them one after another."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def write_frames(folder: Path, count: int = 12, size: tuple[int, int] = (8, 6)) -> Path:
    """Write a folder of frames, each as bright as its number is high, which are not in the order of their names."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (number,) * 3).save(folder / f"frame{number}.png")
    return folder
