"""A small vision transformer, from the example plugin, on MNIST: 96.86 % after 3 epochs (one seed).

python -m pip install -e plugins/visreg-tinyvit && python tools/train.py configs/tiny_vit_mnist.py
"""

plugins = ["visreg-tinyvit"]

_train = [dict(type="MNIST", train=True), dict(type="Digits", train=True)]
_test = [dict(type="MNIST", train=False), dict(type="Digits", train=False)]

task = dict(type="Classification", mean=[0.1307], std=[0.3081])
model = dict(type="TinyViT", image_size=28, patch_size=7, in_channels=1, num_classes=10)
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="Accuracy")]

optimizer = dict(type="AdamW", lr=1e-3, weight_decay=0.05)
param_groups = dict(no_decay=["norm", "bias", "*.position"])
schedule = dict(type="Cosine", warmup_steps=100)
hooks = [dict(type="LogGradNorm", every=100)]

train = dict(dataset=dict(type="FirstAvailable", datasets=_train), batch_size=128)
val = dict(dataset=dict(type="FirstAvailable", datasets=_test), batch_size=1000)

run = dict(epochs=3)
