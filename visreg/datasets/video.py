"""The one place where video files are decoded, by PyAV: those frames alone that are asked for, found by their times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from visreg.data import printable
from visreg.datasets.files import DamagedError, open_file
from visreg.datasets.image import MAX_PIXELS
from visreg.errors import DataError

# FFmpeg's others are playlists, which name further files and addresses, or are not for video.
FORMATS = "asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,mpeg,mpegts,mpegvideo,ogg,wtv"
SLACK = 2  # frames by which the count in a file's head may be too high though nothing is missing

Choose = Callable[[Sequence[float]], Sequence[int]]


@frozen
class _Frames:
    """Which frames there are in a video.

    Attributes:
        stamps: when each is shown, in units of ``unit`` and in order; their numbers, if the file does not say.
        keys: stamps of those at which decoding can begin; empty if the file does not say.
        unit: seconds.
    """

    stamps: Sequence[int]
    keys: Sequence[int]
    unit: float

    @property
    def times(self) -> list[float]:
        """When each frame is shown, in seconds from the first."""
        return [(stamp - self.stamps[0]) * self.unit for stamp in self.stamps]


def read_video(path: str | Path, choose: Choose) -> Tensor:
    """Return the chosen frames of a video file, uint8 (T, 3, H, W), upright as the file's rotation says.

    Which frames there are is read from the file without decoding them; decoding then begins at the last key frame
    before the first that is wanted, and ends at the last that is wanted. A frame is what PyAV gives for it if all are
    decoded, in RGB. No threads are started, since workers share the cores among themselves.

    Args:
        path: the file; its content alone says what format it has.
        choose: gets the times in seconds at which the frames are shown, in order, the first at 0, and returns the
            numbers of those wanted; a number may come several times.

    Raises:
        DataError: if PyAV is missing; if the file cannot be read, is no ordinary file, is no video, is damaged or cut
            short, or its frames differ in size or have more than ``MAX_PIXELS`` pixels.
    """
    av = import_av()
    name = printable(path)
    try:
        frames = _listed(path)
        chosen = choose(frames.times)
        found = _found(path, frames, sorted(set(chosen)))
        return stacked(path, [found[number] for number in chosen])
    except (DataError, MemoryError):
        raise
    except (av.FFmpegError, OSError) as error:
        reason = printable(error.strerror or error)
        raise DamagedError(f"{name}: cannot be read as a video: {type(error).__name__}: {reason}") from error


def stacked(path: str | Path, frames: Sequence[Tensor]) -> Tensor:
    """Return frames (3, H, W) as a clip (T, 3, H, W).

    Raises:
        DamagedError: if they differ in size.
    """
    sizes = sorted({tuple(frame.shape[1:]) for frame in frames})
    if len(sizes) > 1:
        found = " and ".join(f"{height}×{width}" for height, width in sizes)
        raise DamagedError(f"{printable(path)}: its frames differ in size: {found}")
    return torch.stack(list(frames))


def import_av() -> Any:
    """Return the module ``av``.

    Raises:
        DataError: if it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise DataError('video files need PyAV: pip install "visreg[video]"; folders of frames do not') from error
    return av


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open a file; give its container and its video stream, which a picture on the cover of a song is not."""
    av = import_av()
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    with (
        open_file(path, "a video") as file,
        av.open(file, container_options=options, metadata_errors="replace") as container,
    ):
        cover = av.stream.Disposition.attached_pic
        streams = [each for each in container.streams.video if not each.disposition & cover]
        if not streams:
            kinds = ", ".join(sorted({each.type for each in container.streams})) or "nothing"
            raise DamagedError(f"{printable(path)}: there is no video in it, only {kinds}")
        codec = streams[0].codec_context
        if codec is None:
            raise DamagedError(f"{printable(path)}: its video is in no format that PyAV knows")
        if codec.width * codec.height > MAX_PIXELS:
            size = f"{codec.height}×{codec.width}"
            raise DataError(f"{printable(path)}: {size} is more than {MAX_PIXELS:,} pixels; shrink it")
        codec.thread_count = 1
        yield container, streams[0]


def _listed(path: str | Path) -> _Frames:
    """Return which frames there are in a file, without decoding any unless the file does not tell their times.

    Raises:
        DamagedError: if there are none, or fewer than its head says.
    """
    with _opened(path) as (container, stream):
        packets = [each for each in container.demux() if each.size]
        _check_whole(path, container, stream, packets)
        packets = [each for each in packets if each.stream_index == stream.index]
        stamps = {each.pts for each in packets if not each.is_discard}
        keys = sorted(each.pts for each in packets if each.is_keyframe and each.pts is not None)
        unit, rate = float(stream.time_base or 0), float(stream.guessed_rate or 1)
    if unit and None not in stamps and len(stamps) == sum(not each.is_discard for each in packets):
        frames = _Frames(stamps=sorted(stamps), keys=keys, unit=unit)
    else:
        frames = _Frames(stamps=range(sum(1 for _ in _decoded(path))), keys=(), unit=1 / rate)
    if not frames.stamps:
        raise DamagedError(f"{printable(path)}: there are no frames in it")
    return frames


def _check_whole(path: str | Path, container: Any, stream: Any, packets: Sequence[Any]) -> None:
    """Make sure that a file goes on for as long as its head says.

    Raises:
        DamagedError: if it does not.
    """
    count, promised = sum(each.stream_index == stream.index for each in packets), stream.frames
    if count < promised - SLACK:
        raise DamagedError(f"{printable(path)}: is cut short: {count} of its {promised} frames are there")
    timed = [each for each in packets if each.pts is not None and each.time_base]
    if timed and container.duration:
        begins = min(each.pts * each.time_base for each in timed)
        lasts = float(max((each.pts + (each.duration or 0)) * each.time_base for each in timed) - begins)
        promised = container.duration / 1e6
        if lasts < promised - max(1.0, 0.1 * promised):
            raise DamagedError(f"{printable(path)}: is cut short: {lasts:.1f} of its {promised:.1f} s are there")


def _found(path: str | Path, frames: _Frames, numbers: Sequence[int]) -> dict[int, Tensor]:
    """Return frames by number.

    Raises:
        DamagedError: if one cannot be had.
    """
    wanted = {frames.stamps[number]: number for number in numbers}
    first, last = frames.stamps[numbers[0]], frames.stamps[numbers[-1]]
    before = frames.keys[: bisect_right(frames.keys, first)]
    for start in (*before[-1:], None):  # from the first frame on, where the way to another is not told rightly
        found: dict[int, Tensor] = {}
        with closing(_decoded(path, start)) as decoded:
            for place, frame in enumerate(decoded):
                stamp = frame.pts if frames.keys else place
                if place == 0 and start is not None and stamp not in before:
                    break  # as in MPEG program streams, whose times are guessed after a jump
                if stamp in wanted:
                    found[wanted[stamp]] = _picture(frame)
                if stamp is None or stamp >= last:
                    break
        if len(found) == len(wanted):
            return found
    lost = next(number for number in numbers if number not in found)
    raise DamagedError(f"{printable(path)}: frame {lost} of {len(frames.stamps)} cannot be decoded")


def _decoded(path: str | Path, start: int | None = None) -> Generator[Any]:
    """Yield the frames of a file from the key frame shown at ``start`` on, or all.

    Raises:
        DamagedError: at one that the decoder says is damaged.
    """
    with _opened(path) as (container, stream):
        if start is not None:
            container.seek(start, stream=stream)
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DamagedError(f"{printable(path)}: its frame at {frame.time or 0:.3f} s is damaged")
            yield frame


def _picture(frame: Any) -> Tensor:
    """Return a decoded frame, uint8 (3, H, W), turned by the quarters that its file says."""
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1)).permute(2, 0, 1)
    return torch.rot90(pixels, round(frame.rotation / 90) % 4, dims=(1, 2)).contiguous()
