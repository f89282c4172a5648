"""DeepLabV3+ on a ResNet-18, on scenes of shapes.

    python tools/train.py configs/deeplabv3plus_shapes.py

The backbone's last two stages are dilated, so that they see the image at 8×8, and the decoder works at half its size.
"""

_base_ = "unet_shapes.py"

model = dict(
    _delete_=True,
    type="DeepLabV3Plus",
    num_classes=8,
    backbone="resnet18",
    output_stride=8,  # objects are 12 to 30 pixels wide: at 16 two cells would have to tell what they are
    low_stride=2,
    channels=64,
    rates=[1, 2, 3],  # the context is 8×8
)
