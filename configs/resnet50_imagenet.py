"""ResNet-50 on ImageNet by torchvision's "new recipe": long training, mixup, CutMix, label smoothing and an EMA.

    torchrun --nproc-per-node 8 tools/train.py configs/resnet50_imagenet.py

No score was measured here, for want of the data and of GPUs. The reference reached 80.86 % with these options
(Vryniotis, "How to train state-of-the-art models using torchvision's latest primitives", 2021; the weights are
torchvision's ``IMAGENET1K_V2``). Its 600 epochs see a quarter of the images each, four times; here they are 150 that
see all images four times. What differs is bfloat16 in place of float16.

The images go to ``imagenet/train/n01440764/*.JPEG`` and so on under the data root, one folder for each of the 1000
classes, and the 50,000 of validation likewise to ``imagenet/val``, as ``valprep.sh`` of PyTorch's examples sorts them.
"""

_classes = 1000

task = dict(type="Classification", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
model = dict(type="resnet50", num_classes=_classes)
loss = dict(type="CrossEntropyLoss", label_smoothing=0.1)
metrics = [dict(type="Accuracy"), dict(type="TopKAccuracy", k=5)]

optimizer = dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=2e-5)
param_groups = dict(no_decay=["norm"])
schedule = dict(type="Cosine", warmup_steps=6255)  # five epochs of the reference
hooks = [dict(type="EMA", decay=0.99997)]  # the reference's, which averages every 32 steps only

train = dict(
    dataset=dict(type="ImageFolder", root="imagenet", split="train"),
    sampler=dict(type="RepeatAugSampler", num_repeats=4),
    batch_size=1024,
    drop_last=True,
    workers=8,
    transforms=[
        dict(type="RandomResizedCrop", size=176),
        dict(type="RandomHorizontalFlip"),
        dict(type="TrivialAugmentWide"),
        dict(type="RandomErasing", p=0.1),
    ],
    batch_transforms=[
        dict(type="ToDtype", dtype="float32", scale=True),
        dict(
            type="RandomChoice",
            transforms=[
                dict(type="MixUp", alpha=0.2, num_classes=_classes),
                dict(type="CutMix", alpha=1.0, num_classes=_classes),
            ],
        ),
    ],
)
val = dict(
    dataset=dict(type="ImageFolder", root="imagenet", split="val"),
    batch_size=1024,
    workers=8,
    transforms=[dict(type="Resize", size=232), dict(type="CenterCrop", size=224)],
)

run = dict(epochs=150, precision="bf16")
