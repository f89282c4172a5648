"""DeepLabV3+ with a ResNet-50 on the 19 classes of Cityscapes, for 40,000 steps.

    torchrun --nproc-per-node 4 tools/train.py configs/deeplabv3plus_cityscapes.py

No score was measured here, for want of the data and of GPUs. mmsegmentation reaches 0.796 mean IoU with the recipe that
this one follows (``deeplabv3plus_r50-d8_512x1024_40k_cityscapes``), whose auxiliary head is left out.

The archives of www.cityscapes-dataset.com, ``leftImg8bit_trainvaltest.zip`` and ``gtFine_trainvaltest.zip``, are
unpacked into ``cityscapes`` under the data root, which gives ``cityscapes/leftImg8bit`` and ``cityscapes/gtFine``. Of
the 34 labels in those files the 19 that the benchmark scores are learnt, and the others ignored. The backbone is
pretrained on ImageNet.
"""

_crop = [512, 1024]


def _cityscapes(split):
    return dict(type="Cityscapes", root="cityscapes", split=split, mode="fine", target_type="semantic")


task = dict(type="SemanticSegmentation", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
model = dict(
    type="DeepLabV3Plus", num_classes=19, backbone="resnet50", output_stride=8, weights_backbone="IMAGENET1K_V1"
)
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="MeanIoU"), dict(type="PixelAccuracy")]

optimizer = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="PolynomialLR", total_iters=40_000, power=0.9, every="step")

train = dict(
    dataset=_cityscapes("train"),
    batch_size=8,
    drop_last=True,
    workers=4,
    transforms=[
        dict(type="ScaleJitter", target_size=[1024, 2048], scale_range=[0.5, 2.0]),
        dict(type="RandomCrop", size=_crop, pad_if_needed=True),
        dict(type="RandomHorizontalFlip"),
        dict(type="RandomPhotometricDistort"),
    ],
)
val = dict(dataset=_cityscapes("val"), batch_size=4, workers=4)  # whole images, 1024×2048

run = dict(steps=40_000, eval_every=4_000, precision="bf16")
