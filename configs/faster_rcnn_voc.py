"""torchvision's Faster R-CNN on PASCAL VOC: trained on 2007 and 2012 trainval, evaluated on 2007 test.

    torchrun --nproc-per-node 4 tools/train.py configs/faster_rcnn_voc.py

No score was measured here, for want of the data and of GPUs. mmdetection reaches an AP of 0.795 with the recipe that
this one follows (``faster_rcnn_r50_fpn_1x_voc0712``: four epochs over all images three times). Here images are padded
to squares, so that they make batches.

VOC's archives are unpacked under the data root, which gives ``VOCdevkit/VOC2007`` and ``VOCdevkit/VOC2012``, each with
``Annotations``, ``ImageSets`` and ``JPEGImages``. The backbone is pretrained on ImageNet.
"""

_size = 800
_fit = dict(type="ScaleJitter", target_size=[_size, _size], scale_range=[1.0, 1.0])  # to fit, in its own proportions
_trainval = [dict(type="VOCDetection", year=year, image_set="trainval") for year in ("2007", "2012")]

task = dict(type="Detection")
model = dict(
    type="fasterrcnn_resnet50_fpn", num_classes=21, weights_backbone="IMAGENET1K_V1", min_size=_size, max_size=_size
)
metrics = [dict(type="VOCAveragePrecision", points="11")]

optimizer = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4)
schedule = [dict(type="MultiStepLR", milestones=[3]), dict(type="Constant", warmup_steps=500)]

train = dict(
    dataset=dict(type="Repeat", times=3, dataset=dict(type="Concat", datasets=_trainval)),
    batch_size=16,
    workers=4,
    transforms=[_fit, dict(type="RandomHorizontalFlip"), dict(type="CenterCrop", size=_size)],
)
val = dict(
    dataset=dict(type="VOCDetection", year="2007", image_set="test"),
    batch_size=16,
    workers=4,
    transforms=[_fit, dict(type="CenterCrop", size=_size)],
)

run = dict(epochs=4)
