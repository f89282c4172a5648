"""Evaluate a checkpoint: ``python tools/test.py work/cnn_mnist/checkpoints/best.pt``; see ``visreg test --help``."""

import sys

from visreg.cli import main

if __name__ == "__main__":
    main(["test", *sys.argv[1:]])
