"""A small Mask R-CNN on scenes of shapes.

python tools/train.py configs/mask_rcnn_shapes.py
"""

_base_ = "faster_rcnn_shapes.py"

model = dict(type="MaskRCNN", mask_channels=64)
metrics = [dict(type="MeanAveragePrecision"), dict(type="MeanAveragePrecision", of="masks")]

train = dict(dataset=dict(targets=["boxes", "masks"]))
val = dict(dataset=dict(targets=["boxes", "masks"]))
