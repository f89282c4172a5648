"""Writes a checkpoint of this version beside this file, which every later version must be able to resume.

    python tests/golden/make.py

A file that a release was made with is never written again. See `tests/test_golden.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import visreg
from visreg import build_runner
from visreg.checkpoint import load, resume

HERE = Path(__file__).parent
DATA = {"type": "Digits", "train": False, "size": 8}
CONFIG = {
    "task": {"type": "Classification", "mean": [0.5], "std": [0.5]},
    "model": {"type": "MLP", "image_size": 8, "widths": [8], "num_classes": 10},
    "loss": {"type": "CrossEntropyLoss"},
    "metrics": [{"type": "Accuracy"}],
    "optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9},
    "schedule": [
        {"type": "Cosine", "warmup_steps": 2},
        {"type": "ReduceLROnPlateau", "monitor": "accuracy", "mode": "max"},
    ],
    "train": {"dataset": DATA, "batch_size": 100, "sampler": {"type": "InfiniteSampler"}},
    "val": {"dataset": DATA, "batch_size": 100},
    "hooks": [{"type": "EMA", "decay": 0.9}, {"type": "EarlyStopping", "monitor": "accuracy"}],
    "default_hooks": [{"type": "MetricsLog", "every": 3}, {"type": "Checkpoint", "best": "accuracy"}],
    "run": {"steps": 8, "eval_every": 4, "device": "cpu", "precision": "fp32"},
}


def digest(state: dict) -> str:
    """Return the SHA-256 of the weights in a checkpoint."""
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state["task"].values())).hexdigest()


def main() -> None:
    """Train half of the run and keep its checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        runner = build_runner({**CONFIG, "run": {**CONFIG["run"], "steps": 4, "work_dir": folder}})
        runner.train()
        name = f"visreg-{visreg.__version__}"
        shutil.copy(max(Path(folder, "checkpoints").glob("step_*.pt")), HERE / f"{name}.pt")
        state = load(HERE / f"{name}.pt")
        facts = {"config": CONFIG, "step": state["step"], "scores": state["scores"], "sha256": digest(state)}
        (HERE / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
        assert resume(Path(folder, "checkpoints")) is not None


if __name__ == "__main__":
    main()
