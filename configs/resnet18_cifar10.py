"""torchvision's ResNet-18, adopted as it is, on CIFAR-10: 73.77 % after 3 epochs (one seed).

    python tools/train.py configs/resnet18_cifar10.py

It halves a 32×32 image five times, as it does a 224×224 one: networks made for small images score higher. The score was
measured on the JPEG copy that ``two_conv_cifar10.py`` tells of.
"""

_base_ = "two_conv_cifar10.py"

model = dict(_delete_=True, type="resnet18", num_classes=10)
optimizer = dict(_delete_=True, type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
schedule = dict(type="Cosine", warmup_steps=200)

train = dict(batch_size=128)
run = dict(epochs=3)
