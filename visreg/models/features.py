"""A classifier of torchvision's as a backbone: its feature maps at several strides instead of its logits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from visreg.errors import suggest

PROBE = 512  # pixels of the blank image that tells the stride of each layer, in each direction


class Features(nn.Module):
    """The last feature maps of each stride of a convolutional classifier of torchvision's.

    What comes behind the last of ``strides`` is left off, or dilated: the convolutions that halve do so no more, and
    those behind them skip as many pixels, so that their weights still see what they were made to see (Chen et al. 2017,
    "Rethinking atrous convolution").

    Args:
        backbone: its name in ``torchvision.models``, such as ``resnet50`` or ``mobilenet_v3_large``.
        strides: of the feature maps to return, in pixels of the image, ascending.
        in_channels: channels of the image; where they are not 3, the first convolution is made anew.
        weights: pretrained ones by torchvision's name, such as ``"IMAGENET1K_V1"``.
        dilate: whether to keep, and dilate, what comes behind the last stride.

    Attributes:
        channels: of each feature map.

    Raises:
        ValueError: if there is no such backbone, or no such weights of it, or it has no feature maps of such strides.
    """

    def __init__(
        self,
        backbone: str,
        strides: Sequence[int],
        in_channels: int = 3,
        weights: str | None = None,
        dilate: bool = False,
    ) -> None:
        super().__init__()
        names = models.list_models(module=models)
        if backbone not in names:
            raise ValueError(f"backbone: torchvision has no model {backbone!r}{suggest(backbone, names)}")
        known = models.get_model_weights(backbone).__members__
        if weights is not None and weights not in known:
            raise ValueError(f"weights_backbone: {backbone} has no weights {weights!r}{suggest(weights, known)}")
        network = models.get_model(backbone, weights=weights)
        if in_channels != 3:
            _replace_first(network, in_channels)
        try:
            if dilate:
                _dilate(network, strides[-1], in_channels)
            nodes = _last_nodes(network, strides, in_channels)
        except Exception as error:  # whatever a network that is no stack of convolutions raises
            raise ValueError(f"backbone: no feature maps can be taken of {backbone}: {error}") from error
        if missing := [stride for stride in strides if stride not in nodes]:
            raise ValueError(f"backbone: {backbone} has no feature maps of stride {missing[0]}")
        wanted = {nodes[stride][0]: str(stride) for stride in strides}
        self.network = create_feature_extractor(network, train_return_nodes=wanted, eval_return_nodes=wanted)
        self.strides = tuple(map(str, strides))
        self.channels = tuple(nodes[stride][1] for stride in strides)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return feature maps (N, channels, H / stride, W / stride), one for each stride."""
        found = self.network(image)
        return [found[stride] for stride in self.strides]


def _convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def _replace_first(network: nn.Module, in_channels: int) -> None:
    name, old = next(iter(_convolutions(network).items()))
    sizes: dict[str, Any] = {key: getattr(old, key) for key in ("kernel_size", "stride", "padding")}
    new = nn.Conv2d(in_channels, old.out_channels, bias=old.bias is not None, **sizes)
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, new)


@torch.no_grad()
def _dilate(network: nn.Module, output_stride: int, in_channels: int) -> None:
    """Take out the strides above ``output_stride``, and dilate what comes behind them.

    Raises:
        ValueError: if something halves there that is no convolution about a pixel.
    """
    probe, strides = copy.deepcopy(network).to("meta").eval(), dict[str, int]()

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            strides[name] = _stride(inputs[0])

        return hook

    for name, module in probe.named_modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
            module.register_forward_pre_hook(note(name))
    probe(torch.zeros(2, in_channels, PROBE, PROBE, device="meta"))
    for name, stride in strides.items():
        layer: Any = network.get_submodule(name)
        if stride < output_stride or (layer.kernel_size, layer.stride) == ((1, 1), (1, 1)):
            continue
        if not isinstance(layer, nn.Conv2d) or not all(size % 2 for size in layer.kernel_size):
            raise ValueError(f"it halves stride {stride} by {layer}, which cannot be dilated")
        factor = stride // output_stride
        layer.stride = (1, 1)
        if max(layer.kernel_size) > 1:
            layer.dilation = (factor * layer.dilation[0], factor * layer.dilation[1])
            layer.padding = (factor * int(layer.padding[0]), factor * int(layer.padding[1]))


@torch.no_grad()
def _last_nodes(network: nn.Module, strides: Sequence[int], in_channels: int) -> dict[int, tuple[str, int]]:
    """Return the name, and the channels, of the last feature map of each stride."""
    probe = copy.deepcopy(network).to("meta")
    training, evaluating = get_graph_node_names(probe)
    both = [name for name in evaluating if name in set(training)]
    maps = create_feature_extractor(probe, both).eval()(torch.zeros(2, in_channels, PROBE, PROBE, device="meta"))
    found = {}
    for name in both:
        value = maps[name]
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[2] == value.shape[3] <= PROBE:
            found[_stride(value)] = (name, value.shape[1])
    return found


def _stride(features: Tensor) -> int:
    """Return of which stride feature maps of the probe are; some networks lose a pixel at the border."""
    return 1 << round(math.log2(PROBE / features.shape[-1]))


def resized(features: Tensor, like: Tensor) -> Tensor:
    """Return feature maps enlarged, or reduced, to the height and width of ``like``, bilinearly."""
    return interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
