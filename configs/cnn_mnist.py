"""The network of PyTorch's basic MNIST example: 98.47 %, 98.43 % and 98.41 % after 10 epochs (seeds 0, 1 and 2).

    python tools/train.py configs/cnn_mnist.py

One CPU minute; after one epoch it is at 94.7 %. ``python tools/benchmarks/mnist.py`` compares it with the same recipe
written by hand.
"""

_train = [dict(type="MNIST", train=True), dict(type="Digits", train=True)]
_test = [dict(type="MNIST", train=False), dict(type="Digits", train=False)]

task = dict(type="Classification", mean=[0.1307], std=[0.3081])
model = dict(type="ConvNet", in_channels=1, image_size=28, num_classes=10)
loss = dict(type="CrossEntropyLoss")  # of logits: the negative log-likelihood of their log-softmax
metrics = [dict(type="Accuracy")]

optimizer = dict(type="SGD", lr=0.01, momentum=0.5)

train = dict(dataset=dict(type="FirstAvailable", datasets=_train), batch_size=64)
val = dict(dataset=dict(type="FirstAvailable", datasets=_test), batch_size=1000)

run = dict(epochs=10, channels_last=True)
