"""DOC"""

_size = 224
_grow = dict(type="Resize", size=_size * 8 // 7)

task = dict(type="Classification", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])  # what the weights were made for
model = dict(type="resnet18", weights="IMAGENET1K_V1", num_classes=2)
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="Accuracy")]

optimizer = dict(type="SGD", lr=1e-3, momentum=0.9)
schedule = dict(type="StepLR", step_size=7, gamma=0.1)

train = dict(
    dataset=dict(type="ImageFolder", root="hymenoptera", split="train", classes=["ants", "bees"]),
    transforms=[dict(type="RandomResizedCrop", size=[_size, _size]), dict(type="RandomHorizontalFlip")],
    batch_size=4,
)
val = dict(
    dataset=dict(type="ImageFolder", root="hymenoptera", split="val", classes=["ants", "bees"]),
    transforms=[_grow, dict(type="CenterCrop", size=[_size, _size])],
    batch_size=51,
)

run = dict(epochs=25)
