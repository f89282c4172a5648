"""scikit-learn's handwritten digits: real, and there without a download."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import define, field
from attrs.validators import ge, instance_of
from torch import Tensor
from torch.nn.functional import interpolate

from visreg.data import DataInfo, Dataset, Sample
from visreg.errors import DataError

LEVELS = 16  # the source's brightest grey
FOLD = 5  # one in this many is for testing
SIZES = {True: 1442, False: 355}


@define(kw_only=True, eq=False)
class Digits(Dataset):
    """1,797 handwritten digits of 43 people, 8×8 pixels and 17 grey levels, enlarged; they are not MNIST.

    Of each class every fifth image, in the order of the source, is for testing (355), the others (1,442) for training.
    A sample has ``image``, uint8 (1, size, size), 0 for paper and 255 for ink, and ``label``, int64 ().

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (its test part), as
    scikit-learn has it in ``load_digits``.

    Args:
        train: the training images, else the test images.
        size: height and width to enlarge to, bilinearly.
    """

    train: bool = field(default=True, validator=instance_of(bool))
    size: int = field(default=28, validator=[instance_of(int), ge(1)])
    held: dict[str, Tensor] = field(factory=dict, init=False, repr=False)  # the samples as one batch

    @property
    def info(self) -> DataInfo:
        image = torch.zeros(1, self.size, self.size, dtype=torch.uint8)
        blank = {"image": image, "label": torch.zeros((), dtype=torch.int64)}
        return DataInfo(name="digits (scikit-learn, not MNIST)", classes=tuple("0123456789"), sample=blank)

    def open(self) -> None:
        if self.held:
            return
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError(
                f'Digits needs scikit-learn, which cannot be imported ({error}); pip install "visreg[demo]"'
            ) from error
        found = load_digits()
        labels = torch.tensor(found.target.tolist(), dtype=torch.int64)
        mine = _is_test(labels) != self.train
        grey = torch.tensor(found.images[mine.numpy()].tolist())[:, None]
        enlarged = interpolate(grey, size=(self.size, self.size), mode="bilinear", align_corners=False)
        images = (enlarged * (255 / LEVELS)).round().clamp(0, 255).to(torch.uint8)
        self.held = {"image": images, "label": labels[mine]}

    def __len__(self) -> int:
        return SIZES[self.train]

    def __getitem__(self, index: int) -> Sample:
        self.open()
        return {name: tensor[index] for name, tensor in self.held.items()}

    def labels(self) -> Tensor | None:
        self.open()
        return self.held["label"]

    @property
    def fixed(self) -> bool:
        return True

    def tensors(self) -> Mapping[str, Tensor] | None:
        self.open()
        return self.held


def _is_test(labels: Tensor) -> Tensor:
    """Return, bool (N,), which images are for testing: every fifth of its class."""
    of_class = labels[:, None] == torch.arange(10)
    place = of_class.cumsum(dim=0).gather(1, labels[:, None])[:, 0]
    return place % FOLD == 0
