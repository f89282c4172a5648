"""The network and recipe of airbench94, which are to reach 94 % on CIFAR-10 within seconds on a GPU.

    python tools/train.py configs/speed_cifar10.py

It has not been measured on a GPU yet; ``python tools/benchmarks/speed_cifar10.py`` does, beside the same by hand. On a
CPU, with ``run.compile=False``, it reached 90.72 % in 36 CPU minutes (one seed) on the copy of CIFAR-10 as JPEG files
that the base config tells of, which are of quality 75, with half of the resolution in colour.

Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498. Images are mirrored at random
rather than in turns, for which there are two epochs more; biases do not decay.
"""

_base_ = "two_conv_cifar10.py"

task = dict(views="shifted")
model = dict(_delete_=True, type="AirbenchNet", in_channels=3, num_classes=10)
loss = dict(label_smoothing=0.2)

optimizer = dict(_delete_=True, type="SGD", lr=1.5, momentum=0.85, nesterov=True, weight_decay=1.33e-3)
param_groups = dict(lr_scale={"blocks.?.norm?.bias": 64}, no_decay=["bias"])
schedule = dict(type="Linear", warmup_steps=0.23, start=0.2, final=0.07)
hooks = [
    dict(type="Whiten", layer="whiten"),
    dict(type="Freeze", patterns=["whiten.weight", "blocks.?.norm?.weight"]),
    dict(type="Freeze", patterns=["whiten.bias"], start=3),
    dict(type="Lookahead", every=5, alpha=0.23, power=3),
]

train = dict(
    batch_size=1024,
    drop_last=True,
    transforms=[
        dict(type="RandomHorizontalFlip"),
        dict(type="RandomCrop", size=32, padding=2, padding_mode="reflect"),
    ],
)
val = dict(batch_size=2000)
run = dict(_delete_=True, epochs=12, eval_every=12, precision="bf16", channels_last=True, compile="reduce-overhead")
