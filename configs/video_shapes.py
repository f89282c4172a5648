"""A small network of 3-D convolutions that tells in which of eight ways shapes move: 87.5 % after 8 epochs (seed 0).

    python tools/train.py configs/video_shapes.py

Two CPU minutes. A single frame tells nothing of the class; a guess gets 12.5 %, and for three epochs training does no
better. torchvision's video models can stand in its place: ``model=dict(type="r3d_18", num_classes=8)``.
"""

task = dict(type="Classification", mean=[0.5], std=[0.25])
model = dict(type="VideoConvNet", num_classes=8)
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="Accuracy")]

optimizer = dict(type="AdamW", lr=3e-3, weight_decay=0.01)
schedule = dict(type="OneCycleLR", max_lr=3e-3, pct_start=0.1, every="step")

train = dict(dataset=dict(type="ShapeClips", train=True, size=8000), batch_size=32)
val = dict(dataset=dict(type="ShapeClips", train=False, size=1000), batch_size=100)

run = dict(epochs=8)
