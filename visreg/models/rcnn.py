"""Two-stage detectors: torchvision's, on a backbone of any size, for images of any size."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from visreg.errors import suggest
from visreg.models.features import Features
from visreg.models.images import check_positive
from visreg.models.yolo import SIZES, Backbone, stage_channels

CSP = tuple(f"csp_{size}" for size in SIZES)
CSP_STRIDES, STRIDES = (4, 8, 16), (4, 8, 16, 32)
TINY = 1e-6  # pixels
RATIOS = (0.5, 1.0, 2.0)  # of an anchor's height to its width
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FasterRCNN(TorchvisionFasterRCNN):  # type: ignore[misc]  # torchvision ships no types
    """Faster R-CNN with a feature pyramid, trained as a whole.

    A region proposal network says where something is, and a second stage says what, and where exactly (Ren et al. 2015;
    feature pyramid: Lin et al. 2017). It is torchvision's own, so it computes its own losses; but ``num_classes`` does
    not count the background, images keep their size, all weights are learnt, and each part can be made small.

    Args:
        num_classes: how many classes there are; no background is counted.
        backbone: any of torchvision's classifiers, such as ``"resnet18"``, of strides 4 to 32; or that of `YOLO`, of
            strides 4 to 16, ``"csp_n"`` to ``"csp_x"``, which is smaller.
        weights_backbone: the backbone's pretrained weights by torchvision's name, such as ``"IMAGENET1K_V1"``.
        channels: of each level of the feature pyramid.
        hidden: how wide the second stage's two layers are.
        anchor_size: side in pixels of the anchors on the finest level; it doubles from level to level.
        proposals: of the first stage, for each image.
        samples: of those, as many are learnt from.
        sampling_ratio: points, in each direction, that a cell of a proposal's features is the mean of; small objects
            need no more than 1, which takes a quarter of the time of 2.
        image_mean: of the pixels, on the scale 0..1; ImageNet's by default.
        image_std: their standard deviation; ImageNet's by default.
        box_score_thresh: what a box must score to be predicted.
        box_nms_thresh: IoU above which the lower of two boxes of one class is dropped.
        box_detections_per_img: as many are predicted at most.

    Raises:
        ValueError: if an option cannot be.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet18",
        weights_backbone: str | None = None,
        channels: int = 256,
        hidden: int = 1024,
        anchor_size: int = 32,
        proposals: int = 1000,
        samples: int = 512,
        sampling_ratio: int = 2,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
    ) -> None:
        check_positive(
            num_classes=num_classes, channels=channels, hidden=hidden, anchor_size=anchor_size, proposals=proposals,
            samples=samples, sampling_ratio=sampling_ratio, box_detections_per_img=box_detections_per_img,
        )  # fmt: skip
        pyramid = _Pyramid(backbone, weights_backbone, channels)
        levels = pyramid.levels
        sizes = tuple((anchor_size * 2**level,) for level in range(levels + 1))  # one more, of the finest pooled away
        names = [str(level) for level in range(levels)]
        super().__init__(
            pyramid,
            rpn_anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
            rpn_pre_nms_top_n_train=2 * proposals, rpn_pre_nms_top_n_test=proposals,
            rpn_post_nms_top_n_train=proposals, rpn_post_nms_top_n_test=proposals,
            box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=sampling_ratio),
            box_head=TwoMLPHead(channels * 7**2, hidden), box_predictor=FastRCNNPredictor(hidden, num_classes + 1),
            box_score_thresh=box_score_thresh, box_nms_thresh=box_nms_thresh,
            box_detections_per_img=box_detections_per_img,
            box_batch_size_per_image=samples,
        )  # fmt: skip
        self.num_classes = num_classes
        self.transform = _AsTheyAre(1, 1, image_mean or IMAGENET_MEAN, image_std or IMAGENET_STD)
        self.level_names = names


class MaskRCNN(FasterRCNN):
    """Mask R-CNN: a Faster R-CNN that also says which pixels are of each object (He et al. 2017).

    Args:
        num_classes: how many classes there are; no background is counted.
        mask_channels: of the four convolutions that a mask is made by.
        mask_size: cells across a box that a mask is made of, an even number; small objects need no more than 14, which
            take a quarter of the time of 28.
        options: of `FasterRCNN`.

    Raises:
        ValueError: if an option cannot be.
    """

    def __init__(self, num_classes: int, mask_channels: int = 256, mask_size: int = 28, **options: Any) -> None:
        check_positive(mask_channels=mask_channels, mask_size=mask_size)
        if mask_size % 2:
            raise ValueError(f"mask_size: must be even, got {mask_size}")
        super().__init__(num_classes, **options)
        inputs, ratio = self.backbone.out_channels, self.roi_heads.box_roi_pool.sampling_ratio
        self.roi_heads.mask_roi_pool = MultiScaleRoIAlign(self.level_names, mask_size // 2, sampling_ratio=ratio)
        self.roi_heads.mask_head = MaskRCNNHeads(inputs, (mask_channels,) * 4, 1)
        self.roi_heads.mask_predictor = MaskRCNNPredictor(mask_channels, mask_channels, num_classes + 1)


class _AsTheyAre(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision ships no types
    """Normalises images and puts them into a batch, and does not resize them."""

    min_size = None

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """Return both as they are."""
        return image, target

    def postprocess(
        self, result: list[dict[str, Tensor]], image_shapes: Any, original_image_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Return what was found with masks (P, 1, H, W) of the images' sizes; in place of cells (P, 1, M, M).

        torchvision rounds boxes to whole pixels before it pastes masks into them, which costs small objects a lot.
        """
        for found, size in zip(result, original_image_sizes, strict=False):  # while training nothing is found
            if "masks" in found:
                masks = found["masks"]
                pasted = [_pasted(mask, box, size) for mask, box in zip(masks, found["boxes"].tolist(), strict=True)]
                found["masks"] = torch.stack(pasted) if pasted else masks.new_zeros(0, 1, *size)
        return result


def _pasted(mask: Tensor, box: Sequence[float], size: tuple[int, int]) -> Tensor:
    """Return an image (1, H, W) of ``size`` with a mask (1, M, M) in a box, interpolated, and 0 outside."""
    image = mask.new_zeros(1, *size)
    rows, down = _across(box[1], box[3], size[0])
    columns, right = _across(box[0], box[2], size[1])
    if len(down) and len(right):
        grid = torch.stack(torch.meshgrid(right, down, indexing="xy"), dim=-1).to(mask)
        image[:, rows, columns] = grid_sample(mask[None], grid[None], padding_mode="border", align_corners=False)[0]
    return image


def _across(low: float, high: float, pixels: int) -> tuple[slice, Tensor]:
    """Return which pixels have their centres between two edges, and their places there, -1 to 1.

    A place is that of a pixel's corner, since RoIAlign takes it for the centre when it makes the masks to learn.
    """
    first = max(0, math.ceil(low - 0.5))
    last = max(first, min(pixels, math.ceil(high - 0.5)))
    return slice(first, last), (torch.arange(first, last) - low) / max(high - low, TINY) * 2 - 1


class _Pyramid(nn.Module):
    """A backbone with a feature pyramid (Lin et al. 2017).

    Attributes:
        levels: how many feature maps the backbone has.
        out_channels: of each level; torchvision asks for it.

    Raises:
        ValueError: if there is no such backbone, or no such weights of it.
    """

    def __init__(self, backbone: str, weights: str | None, channels: int) -> None:
        super().__init__()
        if backbone.startswith("csp_") and backbone not in CSP:
            raise ValueError(f"backbone: there is no {backbone!r}{suggest(backbone, CSP)}")
        if backbone in CSP and weights is not None:
            raise ValueError(f"weights_backbone: there are none of {backbone}")
        if backbone in CSP:
            depth, width = SIZES[backbone.removeprefix("csp_")]
            stages = stage_channels(CSP_STRIDES[-1], width)
            self.body: nn.Module = Backbone(3, stages, depth, CSP_STRIDES)
            inputs = [stages[stride] for stride in CSP_STRIDES]
        else:
            self.body = Features(backbone, STRIDES, weights=weights)
            inputs = list(self.body.channels)
        self.fpn = FeaturePyramidNetwork(inputs, channels, LastLevelMaxPool())
        self.levels, self.out_channels = len(inputs), channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return features by name: ``"0"`` for the finest and so on, and ``"pool"``, the coarsest halved."""
        levels = OrderedDict((str(level), features) for level, features in enumerate(self.body(images)))
        found: dict[str, Tensor] = self.fpn(levels)
        return found
