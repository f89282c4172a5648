"""A vision transformer that finds shapes in scenes that need no download: VOC AP 0.126 after 6 epochs (seed 0).

visreg train examples/tiny_vit_shapes.py

Three CPU minutes. It is a small example, not a strong detector: visreg's own YOLO learns far more of the same scenes.
"""

plugins = ["visreg-tinyvit"]

task = dict(type="Detection", mean=[0.5], std=[0.25])
model = dict(type="TinyViTDetector", image_size=64, num_classes=7, width=128)
loss = dict(type="YOLOLoss")
metrics = [dict(type="VOCAveragePrecision"), dict(type="CountError", min_score=0.3)]

optimizer = dict(type="AdamW", lr=1e-3, weight_decay=0.05)
schedule = dict(type="Cosine", warmup_steps=200)

train = dict(dataset=dict(type="ShapeScenes", train=True, size=4000, image_size=64), batch_size=32)
val = dict(dataset=dict(type="ShapeScenes", train=False, size=500, image_size=64), batch_size=100)

run = dict(epochs=6)
