"""The two-stage detectors: torchvision's, made small."""

import pytest
import torch
from torchvision.models import detection
from torchvision.ops import roi_align

from visreg.datasets.shapes import ShapeScenes
from visreg.models.rcnn import FasterRCNN, MaskRCNN

SMALL = {"channels": 16, "hidden": 16, "anchor_size": 8, "proposals": 20, "samples": 16, "sampling_ratio": 1}
TARGETS = [
    {"boxes": torch.tensor([[3.0, 3.0, 30.0, 30.0]]), "labels": torch.tensor([1]), "masks": torch.ones(1, 64, 96)}
]


def losses(model):
    return model([torch.rand(3, 64, 96)] * 2, TARGETS * 2)


@pytest.mark.parametrize("backbone", ["csp_n", "mobilenet_v3_small"])
def test_all_weights_are_learnt(backbone):
    model = FasterRCNN(3, backbone=backbone, **SMALL)
    found = losses(model)
    assert set(found) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    sum(found.values()).backward()
    unused = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert unused == []


def test_background_is_not_counted():
    model = FasterRCNN(3, backbone="csp_n", **SMALL)
    assert model.num_classes == 3
    assert model.roi_heads.box_predictor.cls_score.out_features == 4


def test_images_keep_their_size():
    model = FasterRCNN(3, backbone="csp_n", **SMALL)
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    losses(model)
    assert seen == [(2, 3, 64, 96)]


def test_images_are_normalised_once():
    model = FasterRCNN(3, backbone="csp_n", image_mean=[0.5], image_std=[0.25], **SMALL)
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.eval()([torch.full((3, 64, 64), 0.75)])
    torch.testing.assert_close(seen[0], torch.ones(1, 3, 64, 64))


def test_masks():
    model = MaskRCNN(3, mask_channels=8, backbone="csp_n", box_score_thresh=0.0, **SMALL)
    assert "loss_mask" in losses(model)
    with torch.no_grad():
        found = model.eval()([torch.rand(3, 64, 96)])[0]
    assert found["masks"].shape[1:] == (1, 64, 96)
    assert isinstance(model, detection.FasterRCNN)


def test_masks_come_back_where_they_were():
    dataset = ShapeScenes(size=20, targets=["boxes", "masks"])
    transform = MaskRCNN(3, mask_channels=8, backbone="csp_n", **SMALL).transform
    for index in range(20):
        boxes, masks = (dataset[index][key] for key in ("boxes", "masks"))
        cells = roi_align(masks[:, None].float(), [box[None] for box in boxes], output_size=28)  # as they are learnt
        (found,) = transform.postprocess([{"boxes": boxes, "masks": cells}], None, [(64, 64)])
        found = found["masks"][:, 0] > 0.5
        overlap = (found & masks).sum(dim=(1, 2)) / (found | masks).sum(dim=(1, 2))
        assert overlap.min() > 0.95
    boxes = torch.tensor([[-9.0, -9.0, -2.0, -2.0], [60.5, 3.0, 90.0, 3.0], [-5.0, 10.2, 70.0, 12.0]])
    (found,) = transform.postprocess([{"boxes": boxes, "masks": torch.ones(3, 1, 28, 28)}], None, [(64, 64)])
    assert found["masks"].flatten(1).sum(dim=1).tolist() == [0, 0, 2 * 64]
    assert transform.postprocess([{"boxes": boxes[:0], "masks": torch.ones(0, 1, 28, 28)}], None, [(64, 64)])[0][
        "masks"
    ].shape == (0, 1, 64, 64)


@pytest.mark.parametrize("size", [14, 28])
def test_masks_are_made_of_as_many_cells_as_asked_for(size):
    model, seen = MaskRCNN(3, mask_channels=8, mask_size=size, backbone="csp_n", **SMALL), []
    model.roi_heads.mask_predictor.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1:]))
    losses(model)
    assert seen == [(4, size, size)]
    with pytest.raises(ValueError, match="mask_size: must be even, got 15"):
        MaskRCNN(3, mask_size=15, backbone="csp_n", **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"backbone": "resnet81"}, "did you mean 'resnet18'"), ({"channels": 0}, "channels: must be 1 or more")],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FasterRCNN(3, **options)
