"""A Mask R-CNN of 1.4 million weights on scenes of shapes: 0.568 mask mAP, 0.642 box mAP after 4 epochs (seed 0).

    python tools/train.py configs/mask_rcnn_shapes.py

It takes 9.5 CPU minutes. It is torchvision's, on a small backbone that is not pretrained, and makes masks of 14×14.
"""

_base_ = "faster_rcnn_shapes.py"

model = dict(type="MaskRCNN", mask_channels=32, mask_size=14, samples=32)
metrics = [dict(type="MeanAveragePrecision"), dict(type="MeanAveragePrecision", of="masks")]

train = dict(dataset=dict(targets=["boxes", "masks"]))
val = dict(dataset=dict(targets=["boxes", "masks"], size=500))

run = dict(epochs=4)
