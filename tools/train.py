"""Train what a config describes: ``python tools/train.py configs/cnn_mnist.py``; see ``visreg train --help``."""

import sys

from visreg.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
