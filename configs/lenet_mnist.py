"""A LeNet on MNIST, with SGD and momentum: 98.95 % after 10 epochs (one seed).

python tools/train.py configs/lenet_mnist.py
"""

_base_ = "cnn_mnist.py"

model = dict(_delete_=True, type="LeNet", in_channels=1, image_size=28, num_classes=10)
optimizer = dict(lr=0.01, momentum=0.9)
