"""A checkpoint that is ready to predict: from image files to what was found in them, in their own pixels."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from visreg.build import build_predictor
from visreg.checkpoint import given
from visreg.config import apply_overrides, config_from, loads_json
from visreg.data import DataInfo, Dataset, Sample, Transform, to_device
from visreg.datasets.image import Mode, read_image
from visreg.errors import ConfigError, DataError, Problem, ResourceError, VisregError, out_of_memory
from visreg.findings import has_places, in_original, of_image
from visreg.misfit import TO_USE, check_form
from visreg.placement import Axis, Placement, probes, traced
from visreg.runner import Runner
from visreg.samples import Samples, unnamed
from visreg.transform import transform_sample

logger = logging.getLogger("visreg")

ORDINARY = 512  # pixels, each way, of an image in no way peculiar
WAITING = 1 << 28  # bytes of images that may wait for others of their size


@frozen(eq=False)
class Seen:
    """An image, and what the model gets to see of it.

    Attributes:
        place: among the files.
        image: uint8 (C, H, W). sample: what the transforms made of it.
        placement: where the one lies in the other, if that is known.
    """

    place: int
    image: Tensor
    sample: Sample
    placement: Placement | None


@define(eq=False)
class _Files(Dataset):
    """Image files as a dataset; with ``probed``, samples have `probes` too, so that transforms can be traced."""

    paths: Sequence[Path]
    mode: Mode
    probed: bool = False
    image: Tensor = field(factory=lambda: torch.empty(0), init=False)  # the latest

    @property
    def info(self) -> DataInfo:
        return DataInfo(name="files", keys=("image",))

    def open(self) -> None:
        """There is nothing to open."""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        self.image = read_image(self.paths[index], self.mode)
        return {"image": self.image.clone(), **(probes(*self.image.shape[1:]) if self.probed else {})}

    def where(self, index: int) -> str:
        return str(self.paths[index])


@define(eq=False)
class Predictor:
    """A checkpoint that is ready to predict, with its EMA weights if it has some.

    Attributes:
        info: has the names of the classes. mode: in which images are read.
        split: whose ``transforms`` images pass through, those of one sample.
        trained_on: the shape (C, H, W) of images of its dataset, where nothing is done to them and it is known.
    """

    path: Path
    runner: Runner
    transforms: Sequence[Transform]
    split: str
    info: DataInfo
    mode: Mode
    state: Mapping[str, Any]
    trained_on: tuple[int, ...] = ()
    _loaded: bool = False

    @classmethod
    def of(
        cls,
        path: Path,
        split: str | None = None,
        overrides: Sequence[str] = (),
        plugin_files: Collection[Path] = (),
        device: str | None = "auto",
    ) -> Predictor:
        """Return that of a checkpoint.

        Args:
            path: the checkpoint, or a run's folder, of which it is the newest.
            split: by default ``"test"`` if the config has it, else ``"val"``, else ``"train"``.
            overrides: changes to its config.
            plugin_files: files that register components.
            device: where to compute; None for the config's.

        Raises:
            CheckpointError: if it is damaged or cannot be used.
            ConfigError: if its config has mistakes, or the model takes no images of files.
        """
        state = given(path)
        check_form(state, TO_USE, "used to predict")
        own = [f"run.device={device!r}"] if device else []
        config = apply_overrides(config_from(loads_json(state["config"]), str(path)), [*own, *overrides])
        splits = [name for name in ("test", "val", "train") if config.values.get(name)]
        split = split or (splits or ["val"])[0]
        runner, transforms, info = build_predictor(config, split, plugin_files)
        if split == "train":
            logger.warning("the config has no val section, so images pass through no transforms")
            transforms = []
        names = DataInfo(name=info.name, classes=tuple(state["classes"]), others=state.get("class_names", info.others))
        image = info.sample.get("image")
        shape = tuple(image.shape) if isinstance(image, Tensor) and not transforms else ()
        return cls(path, runner, transforms, split, names, _mode(runner, info, split), state, shape)

    def seen(self, files: Sequence[Path]) -> Iterator[Seen | tuple[int, DataError]]:
        """Yield each file as the model is to see it, or its place and why it cannot be read."""
        dataset = _Files(files, self.mode)
        samples = Samples(
            dataset=dataset, transforms=self.transforms, seed=self.runner.config["run"].get("seed", 0), retry=False
        )
        for place in range(len(files)):
            try:
                yield self._seen(samples, dataset, place)
            except DataError as error:
                error.args = (unnamed(dataset, place, str(error)),)
                yield place, error

    def _seen(self, samples: Samples, dataset: _Files, place: int) -> Seen:
        if not self.transforms:
            sample = samples.sample((0, place))
            height, width = dataset.image.shape[1:]
            return Seen(place, dataset.image, sample, Placement(Axis(width, width), Axis(height, height)))
        try:
            dataset.probed = True
            sample = samples.sample((0, place))
            placement = traced(sample, *dataset.image.shape[1:])
        except ResourceError:
            raise
        except Exception:  # a transform that cannot do with boxes, or a file that cannot be read: it shows below
            dataset.probed, placement = False, None
            try:
                sample = samples.sample((0, place))
            except KeyError as error:
                message = f"one needs the key {error} of a sample, which an image to predict does not have"
                raise ConfigError([Problem(f"{self.split}.transforms", message)]) from error
        image = {key: value for key, value in sample.items() if key not in ("boxes", "labels")}
        return Seen(place, dataset.image, image, placement)

    def groups(self, files: Sequence[Path], size: int) -> Iterator[list[Seen] | tuple[int, DataError]]:
        """Yield what `seen` does in batches of up to ``size`` images of one shape."""
        waiting: dict[Any, list[Seen]] = {}
        for item in self.seen(files):
            if isinstance(item, tuple):
                yield item
                continue
            image = item.sample["image"]
            group = waiting.setdefault((tuple(image.shape), image.dtype), [])
            group.append(item)
            held = sum(each.image.nbytes + each.sample["image"].nbytes for one in waiting.values() for each in one)
            if len(group) == size:
                yield waiting.pop((tuple(image.shape), image.dtype))
            elif held > WAITING:
                yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
        yield from waiting.values()

    @torch.no_grad()
    def predict(self, group: Sequence[Seen]) -> list[dict[str, Any]]:
        """Return what is predicted for each image, as `Task.predict` gives it, on the CPU.

        Raises:
            DataError: if the model cannot take images of their size.
        """
        batch = {"image": torch.stack([each.sample["image"] for each in group])}
        batch = to_device({**batch, "index": torch.tensor([each.place for each in group])}, self.runner.device)
        self._load(batch)
        try:
            with self.runner.autocast():
                predictions = self.runner.task.predict(batch)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, VisregError) or out_of_memory(error) or batch["image"].shape[1:] == self.trained_on:
                raise
            raise DataError(self._misfit(batch["image"].shape[1:], error)) from error
        return [of_image(predictions, place) for place in range(len(group))]

    def _misfit(self, shape: Sequence[int], error: Exception) -> str:
        """Return what to do about images (C, H, W) of a shape that the model cannot take."""
        size = list(self.trained_on[1:]) or [224, 224]
        known = f"; it was trained on {size[0]}×{size[1]}" if self.trained_on else ""
        resize = f'--set \'{self.split}.transforms=[{{"type": "Resize", "size": {size}}}]\''
        return f"the model takes no image of {shape[1]}×{shape[2]} ({error}){known}; resize it: {resize}"

    def _load(self, batch: Mapping[str, Any]) -> None:
        """Take up the weights, before the first prediction; lazy layers learn their shapes from ``batch``."""
        if self._loaded:
            return
        task = self.runner.task.eval()
        if any(isinstance(parameter, UninitializedParameter) for parameter in task.parameters()):
            task.predict(dict(batch))
        self.runner.load_task(self.state)
        self.runner.load_hooks(self.state)
        self.runner.call("before_eval")  # EMA then puts its average into the model
        self._loaded = True

    def original(self, found: Mapping[str, Any], seen: Seen, threshold: float) -> dict[str, Any]:
        """Return what was found in pixels of the original image.

        Raises:
            DataError: if it has a place, and nobody can tell where that is in this original.
            ConfigError: if nobody could in any.
        """
        placement, (height, width) = seen.placement, seen.image.shape[1:]
        if placement is None and has_places(found):
            message = "what they do to the place of things cannot be undone, so nothing can be drawn into the original"
            if self._undoes():
                raise DataError(f"{self.split}.transforms: in an image of {height}×{width}, {message}")
            advice = f"predict without: --set '{self.split}.transforms=[…]' with those that only resize, crop or pad"
            raise ConfigError([Problem(f"{self.split}.transforms", f"{message}; {advice}")])
        return in_original(found, placement or Placement(Axis(width, width), Axis(height, height)), threshold)

    def _undoes(self) -> bool:
        """Return whether what the transforms do to an ordinary image can be undone."""
        blank = torch.zeros(1 if self.mode == "L" else 3, ORDINARY, ORDINARY, dtype=torch.uint8)
        try:
            sample = transform_sample({"image": blank, **probes(ORDINARY, ORDINARY)}, self.transforms, 0)
            return traced(sample, ORDINARY, ORDINARY) is not None
        except Exception:  # as in `_seen`
            return False


def _mode(runner: Runner, info: DataInfo, split: str) -> Mode:
    """Return in which colours images are read: those of the training data, else those that the model takes."""
    if "clip" in (info.sample or info.keys):
        raise ConfigError(
            [Problem(f"{split}.dataset", "the model was trained on clips of video; predict reads images")]
        )
    channels = 3
    if isinstance(image := info.sample.get("image"), Tensor):
        channels = image.shape[0]
    else:
        kernels = (parameter for parameter in runner.task.parameters() if parameter.ndim == 4)
        first = next((each for each in kernels if not isinstance(each, UninitializedParameter)), None)
        channels = 1 if first is not None and first.shape[1] == 1 else 3
    if channels not in (1, 3):
        message = f"the model was trained on images of {channels} channels, and those of files have 1 or 3"
        raise ConfigError([Problem(f"{split}.dataset", message)])
    return "L" if channels == 1 else "RGB"
