"""The least that trains TinyViT, on handwritten digits that need no download.

visreg train examples/tiny_vit_digits.py
"""

plugins = ["visreg-tinyvit"]

task = dict(type="Classification")
model = dict(type="TinyViT", image_size=28, in_channels=1, num_classes=10)
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="Accuracy")]

optimizer = dict(type="AdamW", lr=1e-3)
hooks = [dict(type="LogGradNorm", every=20)]

train = dict(dataset=dict(type="Digits", train=True), batch_size=64)
val = dict(dataset=dict(type="Digits", train=False), batch_size=500)

run = dict(epochs=5)
