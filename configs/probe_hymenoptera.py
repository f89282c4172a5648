"""The last layer of torchvision's ResNet-18, and no other, trained to tell ants from bees: a linear probe.

    python tools/train.py configs/probe_hymenoptera.py

All but that layer is as in ``finetune_hymenoptera.py``, and as its weights were; with those of ImageNet the score was
not measured. With the weights and options that are tried there, it gives 52.9 %: what an epoch of CIFAR-10 has taught
does not tell ants from bees.
"""

_base_ = "finetune_hymenoptera.py"

hooks = [dict(type="Freeze", patterns=["*"], exclude=["fc"])]
