"""Two plain 3×3 convolutions on CIFAR-10, with Adam.

python tools/train.py configs/two_conv_cifar10.py
"""

task = dict(type="Classification", mean=[0.4914, 0.4822, 0.4465], std=[0.247, 0.2435, 0.2616])
model = dict(type="TwoConv", in_channels=3, image_size=32, num_classes=10)
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="Accuracy")]

optimizer = dict(type="Adam", lr=1e-3)

train = dict(dataset=dict(type="CIFAR10", train=True, download=True), batch_size=64)
val = dict(dataset=dict(type="CIFAR10", train=False, download=True), batch_size=1000)

run = dict(epochs=5)
