"""Several heads on one backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from visreg.models.images import check_positive


class Head(nn.Module, ABC):
    """The last layers of a model, which are made once it is known what features they get."""

    @abstractmethod
    def connect(self, channels: Sequence[int]) -> None:
        """Make the layers.

        Args:
            channels: of each feature map, the largest map first; one number where features come as (N, channels).
        """


class LinearHead(Head):
    """Classifies by one linear layer, of feature maps after averaging the last over its places.

    Args:
        num_classes: length of the output.
        hidden: units of a layer with ReLU before it; there is none where not given.
        dropout: the probability of dropping a feature.

    Raises:
        ValueError: if an option is impossible.
    """

    def __init__(self, num_classes: int, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, **({} if hidden is None else {"hidden": hidden}))
        self.num_classes, self.hidden = num_classes, hidden
        self.dropout = nn.Dropout(dropout)

    def connect(self, channels: Sequence[int]) -> None:
        inputs, before = channels[-1], list[nn.Module]()
        if self.hidden is not None:
            before, inputs = [nn.Linear(inputs, self.hidden), nn.ReLU()], self.hidden
        self.layers = nn.Sequential(*before, nn.Linear(inputs, self.num_classes))

    def forward(self, features: Tensor | Sequence[Tensor]) -> Tensor:
        """Return logits (N, num_classes) for features (N, C) or (N, C, H, W), or for the last of several."""
        last = features if isinstance(features, Tensor) else features[-1]
        logits: Tensor = self.layers(self.dropout(last.mean(dim=(2, 3)) if last.ndim == 4 else last))
        return logits


class MultiHead(nn.Module):
    """A backbone, run once, and what several heads make of its features, by name.

    The backbone is any model, of which the last linear layer is left out, so that its features are (N, channels); or
    one that has ``channels``, such as ``Features`` and ``UNetEncoder``, and gives a list of feature maps, the largest
    first. A head is told the channels if it is a `Head`, and is else any module that takes the features.

    Args:
        backbone: images (N, C, H, W) to features.
        heads: features to outputs, by name.

    Raises:
        ValueError: if there is no head, a name cannot be one, or the backbone has no linear layer and no ``channels``.
    """

    def __init__(self, backbone: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not heads:
            raise ValueError("heads: name at least one")
        channels = getattr(backbone, "channels", None)
        self.backbone = backbone
        self.channels = tuple(channels) if isinstance(channels, (list, tuple)) else (_without_last(backbone),)
        for head in heads.values():
            if isinstance(head, Head):
                head.connect(self.channels)
        try:
            self.heads = nn.ModuleDict(heads)
        except KeyError as error:  # a dot in the name, or one that modules have for something else
            raise ValueError(f"heads: {error.args[0]}; give it another name") from None

    def forward(self, image: Tensor) -> dict[str, Any]:
        """Return the output of every head for float images (N, C, H, W).

        Raises:
            ValueError: if the backbone has auxiliary outputs.
        """
        features = self.backbone(image)
        if hasattr(features, "logits"):
            raise ValueError(f"backbone: it returns {type(features).__name__}; set its aux_logits=False")
        return {name: head(features) for name, head in self.heads.items()}


def _without_last(classifier: nn.Module) -> int:
    """Take the last linear layer out of a classifier, and return how many features it was given."""
    linear = [name for name, module in classifier.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        name = type(classifier).__name__
        raise ValueError(f"backbone: {name} ends in no linear layer, and has no channels; use Features, or another")
    parent, _, leaf = linear[-1].rpartition(".")
    features = int(classifier.get_submodule(linear[-1]).in_features)  # type: ignore[arg-type]  # a Linear's int
    setattr(classifier.get_submodule(parent), leaf, nn.Identity())
    return features
