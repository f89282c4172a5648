"""What a random transform must be to be computed for a whole batch, and the two ways to go through a list of them."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from visreg.data import PLACED, Batch, Sample, Transform, pixels
from visreg.errors import DataError, VisregError
from visreg.picture import Box, Picture, with_whole_image
from visreg.random_draws import Draws

Drawn = dict[str, Any]
LIBRARIES = frozenset({"visreg", "torch", "torchvision", "numpy", "PIL"})  # what they refuse is not for them
OF_SAMPLES, OF_BATCHES = 0, 1  # the first part of a transform's place: which of a config's two lists it is in


class OfBatchesError(ValueError):
    """A transform that mixes the samples of a batch got one sample alone, or what it cannot mix."""


class RandomTransform(ABC):
    """A change of images, drawn for each of them and computed for all of a batch at once, on the batch's device.

    What happens to an image is a function of its key, that is of (seed, epoch, index), and of the transform's place in
    the config. So it is the same image whether it goes through alone or in a batch, on whatever path.

    Attributes:
        moves: whether what is in the picture moves, so that what belongs to it must move too.
        resizes: whether the images may be of another size afterwards.
    """

    moves: ClassVar[bool] = False
    resizes: ClassVar[bool] = False

    @abstractmethod
    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        """Return what is to be done to each of the images (N, C, H, W): by name, tensors whose first dimension is N."""

    @abstractmethod
    def apply(self, batch: Batch, drawn: Drawn) -> Batch:
        """Return ``batch`` changed as `draw` said; nothing in it is written to."""

    def obstacle(self, keys: Collection[str]) -> str:
        """Return why this cannot be computed for a batch, with its options or of samples with these keys; or nothing.

        `alone` is then called, sample by sample, with a random state that was seeded for the sample.
        """
        if "clip" in keys:
            return "the frames of a clip must be changed alike"
        others = sorted(PLACED.intersection(keys) - {"mask"}) if self.moves else []
        return f"it moves {' and '.join(others)}" if others else ""

    def alone(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return a sample that there is an `obstacle` to, or a batch, changed in another way.

        Raises:
            ValueError: if there is none.
        """
        raise ValueError(f"{type(self).__name__} is of no use here: {self.obstacle(values) or 'it is for images'}")

    def batch(self, batch: Batch, draws: Draws) -> Batch:
        """Return a batch changed; its images are uint8 or floats (N, C, H, W)."""
        if self.obstacle(batch):
            return self.alone(batch)
        return self.apply(batch, self.draw(draws, batch["image"]))

    def sample(self, sample: Sample, draws: Draws) -> Sample:
        """Return a sample changed, as it would be in a batch."""
        sample = with_whole_image(sample)
        image = pixels(sample)
        if not isinstance(image, Tensor) or image.ndim != 3 or self.obstacle(sample):
            return self.alone(sample)
        one: Batch = {key: sample[key][None] for key in ("image", "mask") if key in sample}
        changed = self.apply(one, self.draw(draws, one["image"]))
        return {**sample, **{key: value[0] for key, value in changed.items()}}

    def __call__(self, values: Any) -> Any:
        """Return a sample or a batch changed; its randomness comes from torch's generator, for lack of keys."""
        image, label = pixels(values), values.get("label")
        if getattr(image, "ndim", 3) == 3 or getattr(label, "ndim", 1) == 0:
            return self.sample(values, Draws(torch.randint(1 << 62, (1,))))
        return self.batch(values, Draws(torch.randint(1 << 62, (len(image),), device=image.device)))


class OfPart(RandomTransform):
    """A random transform that makes of one part of an image another: the rest of it need not even be read."""

    @abstractmethod
    def boxes(self, draws: Draws, sizes: Tensor) -> Tensor:
        """Return the part that is drawn of each image: top, left, height and width, int64 (N, 4).

        Args:
            draws: for the images.
            sizes: their heights and widths, int64 (N, 2).
        """

    @abstractmethod
    def of_part(self, image: Tensor | Picture, box: Box) -> Tensor:
        """Return what this makes of a part of an image (C, H, W), read or not."""

    @abstractmethod
    def shrinks(self, height: int, width: int) -> bool:
        """Return whether a part of a JPEG of this size may be decoded at a fraction of its size."""

    def sample(self, sample: Sample, draws: Draws) -> Sample:
        image = sample.get("image")
        if not isinstance(image, Picture) or self.obstacle(sample) or not PLACED.isdisjoint(sample):
            return super().sample(sample, draws)
        (box,) = self.boxes(draws, torch.tensor([image.shape[1:]])).tolist()
        return {**sample, "image": self.of_part(image, box)}


def is_fixed(transform: Transform) -> bool:
    """Return whether a transform makes of a sample always the same: its attribute ``fixed`` says so."""
    return bool(getattr(transform, "fixed", False))


def split_fixed(transforms: Sequence[Transform]) -> tuple[list[Transform], list[Transform]]:
    """Return the transforms up to the first that is not fixed, whose result can be kept, and the others."""
    count = next((place for place, transform in enumerate(transforms) if not is_fixed(transform)), len(transforms))
    return list(transforms[:count]), list(transforms[count:])


def obstacle(transform: Transform, keys: Collection[str]) -> str:
    """Return why a transform of samples with these keys cannot be computed for a whole batch, or nothing."""
    if isinstance(transform, RandomTransform):
        return transform.obstacle(keys)
    return "" if getattr(transform, "batched", False) else "it is for one sample at a time"


def first_obstacle(transforms: Sequence[Transform], keys: Collection[str]) -> str:
    """Return which of the transforms cannot be computed for a whole batch of samples with these keys, and why."""
    for transform in split_fixed(transforms)[1]:
        if reason := obstacle(transform, keys):
            return f"{name_of(transform)} cannot be computed for a batch: {reason}"
    return ""


def name_of(transform: Transform) -> str:
    """Return a transform's own name; of one that stands for torchvision's, that one's."""
    return type(getattr(transform, "inner", transform)).__name__


def transform_sample(sample: Sample, transforms: Sequence[Transform], key: int, first: int = 0) -> Sample:
    """Return a sample transformed; other random transforms than ours draw from torch's generator, or what they like.

    Args:
        sample: what a dataset gave; its image may be a `Picture`.
        transforms: of samples.
        key: of the sample: ``mix(seed, draw, index)``.
        first: how many transforms of the config's list come before these.

    Raises:
        DataError: if a transform of visreg or torchvision says of the sample that it is not for it.
    """
    for number, transform in enumerate(transforms, first):
        try:
            if isinstance(transform, RandomTransform):
                sample = transform.sample(sample, Draws(torch.tensor([key]), (OF_SAMPLES, number)))
            elif isinstance(image := sample.get("image"), Picture) and _reads(transform) and PLACED.isdisjoint(sample):
                sample = {**sample, "image": transform.of_picture(image)}  # type: ignore[attr-defined]  # it has
            else:
                sample = transform(with_whole_image(sample))
        except ValueError as error:
            if _is_of_sample(error):
                raise DataError(f"{name_of(transform)}: {error}") from error
            raise
    return with_whole_image(sample)


def _is_of_sample(error: ValueError) -> bool:
    """Return whether an exception says that a sample is not for its transform, and is not a mistake in a plugin."""
    frames = traceback.walk_tb(error.__traceback__)
    ours = all(frame.f_globals.get("__name__", "").partition(".")[0] in LIBRARIES for frame, _ in frames)
    return ours and not isinstance(error, (VisregError, OfBatchesError))


def _reads(transform: Transform) -> bool:
    """Return whether a transform can do with an image that is yet to be read."""
    return hasattr(transform, "of_picture")


def transform_batch(
    batch: Batch, transforms: Sequence[Transform], keys: Tensor | None, kind: int = OF_BATCHES, first: int = 0
) -> Batch:
    """Return a batch transformed.

    Args:
        batch: with images (N, C, H, W).
        transforms: of batches, or those of samples that there is no `obstacle` to.
        keys: of the samples, int64 (N,), on the batch's device; None where no transform is random.
        kind: ``OF_SAMPLES`` or ``OF_BATCHES``: which list they are from.
        first: how many transforms of that list come before these.

    Raises:
        DataError: if a transform of samples, of visreg or torchvision, says that they are not for it.
    """
    for number, transform in enumerate(transforms, first):
        try:
            if isinstance(transform, RandomTransform):
                assert keys is not None, "there is a random transform"
                batch = transform.batch(batch, Draws(keys, (kind, number)))
            else:
                batch = transform(batch)
        except ValueError as error:
            if kind == OF_SAMPLES and _is_of_sample(error):
                raise DataError(f"{name_of(transform)}: {error}") from error
            raise
    return batch
