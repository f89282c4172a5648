"""The small YOLO on COCO, by YOLOX's recipe: 300 epochs on mosaics, the last 15 without, and an EMA.

    torchrun --nproc-per-node 8 tools/train.py configs/yolo_coco.py

No score was measured here, for want of the data and of GPUs. YOLOX-s, whose recipe this is and whose network is of the
same size, reaches 0.405 box mAP (Ge et al. 2021). Loss, assignment and head of this one differ, and there is no mixup.

The files of cocodataset.org go to ``coco/train2017/*.jpg``, ``coco/val2017/*.jpg`` and
``coco/annotations/instances_{train,val}2017.json`` under the data root; ``pip install "visreg[det]"`` for the metric.
"""

_size = 640
_fit = dict(type="ScaleJitter", target_size=[_size, _size], scale_range=[1.0, 1.0])  # to fit, in its own proportions


def _coco(split):
    return dict(type="CocoDetection", root=f"coco/{split}", annotations=f"coco/annotations/instances_{split}.json")


task = dict(type="Detection", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
model = dict(type="YOLO", num_classes=80, size="s")
loss = dict(type="YOLOLoss")
metrics = [dict(type="MeanAveragePrecision")]

optimizer = dict(type="SGD", lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
param_groups = dict(no_decay=["norm", "bias"])
schedule = dict(type="Cosine", warmup_steps=9160, final=0.05)  # five epochs
hooks = [dict(type="EMA", decay=0.9998), dict(type="ClipGrad", max_norm=10.0)]

train = dict(
    dataset=dict(type="Mosaic", dataset=_coco("train2017"), size=_size, epochs=285),
    batch_size=64,
    drop_last=True,
    workers=8,
    transforms=[
        _fit,
        dict(type="RandomCrop", size=_size, pad_if_needed=True, fill=114),
        dict(type="RandomHorizontalFlip"),
        dict(type="ColorJitter", brightness=0.4, saturation=0.7, hue=0.015),
        dict(type="SanitizeBoundingBoxes", min_size=2.0),
    ],
)
val = dict(dataset=_coco("val2017"), batch_size=64, workers=8, transforms=[_fit, dict(type="CenterCrop", size=_size)])

run = dict(epochs=300, precision="bf16", eval_every=10)
