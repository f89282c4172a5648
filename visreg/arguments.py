"""The words of the command line, and the help that they come with."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from visreg import __version__, commands

Parser = argparse.ArgumentParser
Add = Callable[..., Parser]  # adds a command


def make_parser() -> Parser:
    """Return what turns words into options; their ``run`` is the command."""
    parser = Parser(prog="visreg", description="Train what a plain-dict config describes.")
    parser.add_argument("--version", action="version", version=f"visreg {__version__}")
    add = parser.add_subparsers(required=True, metavar="COMMAND", title="commands").add_parser
    for describe in (_train, _test, _predict, _browse, _benchmark, _check, _explain, _list, _new_plugin):
        describe(add)
    return parser


def set_last(arguments: Sequence[str]) -> list[str]:
    """Return ``arguments`` with each ``--set`` and its values behind all others: so it takes no CONFIG for a value.

    >>> set_last(["train", "--set", "run.epochs=1", "run.seed=2", "cnn.py", "--resume"])
    ['train', 'cnn.py', '--resume', '--set', 'run.epochs=1', 'run.seed=2']
    """
    if "--" in arguments:
        return list(arguments)
    others: list[str] = []
    settings: list[str] = []
    before, taken = "", False
    for argument in arguments:
        taken = "--set" in (argument, before) or (taken and "=" in argument and not argument.startswith("-"))
        (settings if taken else others).append(argument)
        before = argument
    return others + settings


def _train(add: Add) -> None:
    parser = add("train", help="train what a config describes", description=TRAIN)
    parser.add_argument("config", metavar="CONFIG", help="a .py or .json file")
    newest = "go on from it, by default from the run's newest"
    parser.add_argument("--resume", nargs="?", const="", metavar="CHECKPOINT", help=newest)
    changed = "resume though the config was changed: data, optimizer options and schedule are then the config's"
    parser.add_argument("--resume-override", action="store_true", help=changed)
    parser.add_argument("--work-dir", metavar="DIR", help="the run's folder; short for --set run.work_dir=DIR")
    _add_common(parser, data=True)
    parser.set_defaults(run=commands.train)


def _test(add: Add) -> None:
    parser = add("test", help="evaluate a checkpoint", description=TEST)
    parser.add_argument("paths", nargs="+", metavar="[CONFIG] CHECKPOINT", help="a checkpoint carries its config")
    parser.add_argument("--split", choices=("val", "test"), help="by default test if the config has it, else val")
    out = "where to write the scores; by default test.json in the run's folder"
    parser.add_argument("--out", metavar="FILE", help=out)
    _add_common(parser, data=True)
    parser.set_defaults(run=commands.test)


def _predict(add: Add) -> None:
    parser = add("predict", help="draw and write down what is in images", description=PREDICT)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="or a run's folder, of which it is the newest")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder, or a pattern such as '**/*.jpg'")
    parser.add_argument("--out", metavar="FOLDER", help="by default predictions/ in the run's folder")
    split = "whose transforms images pass through; by default test if the config has it, else val"
    parser.add_argument("--split", choices=("train", "val", "test"), help=split)
    least = "what an object must score, 0 to 1; 0.3 by default"
    parser.add_argument("--threshold", type=_share, default=0.3, metavar="SCORE", help=least)
    parser.add_argument("--top", type=_positive, default=5, metavar="N", help="classes of an image that are told; 5")
    parser.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="images of one size at once; 16")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N; by default a GPU if there is one")
    _add_common(parser)
    parser.set_defaults(run=commands.predict)


def _browse(add: Add) -> None:
    parser = add("browse", help="write pages of samples as the model will see them", description=BROWSE)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="train by default")
    parser.add_argument("--count", type=_positive, default=16, metavar="N", help="samples, drawn at random; 16")
    parser.add_argument("--index", type=_count, nargs="+", default=[], metavar="I", help="these samples instead")
    parser.add_argument("--epochs", type=_positive, default=3, metavar="N", help="augmented versions of each; 3")
    parser.add_argument("--seed", type=_count, default=0, metavar="N", help="draw other samples; 0 by default")
    parser.add_argument("--out", metavar="FOLDER", help="by default browse/SPLIT in the run's folder")
    _add_common(parser, data=True)
    parser.set_defaults(run=commands.browse)


def _benchmark(add: Add) -> None:
    parser = add("benchmark", help="find the fastest settings for a config", description=BENCHMARK)
    parser.add_argument("config", metavar="CONFIG")
    steps = "steps of a turn; by default as many as half a second holds"
    parser.add_argument("--steps", type=_positive, default=0, metavar="N", help=steps)
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="turns that each setting has; 5")
    limit = "seconds that a setting may take to begin, such as to compile the model, before the others go on; 120"
    parser.add_argument("--limit", type=_positive, default=120, metavar="SECONDS", help=limit)
    _add_common(parser, data=True)
    parser.set_defaults(run=commands.benchmark)


def _check(add: Add) -> None:
    parser = add("check", help="list every mistake in a config", description="List every mistake at once.")
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--data", action="store_true", help="read every sample too, and list what is wrong with them")
    workers = "processes that read; by default one for each core"
    parser.add_argument("--workers", type=_count, metavar="N", help=workers)
    parser.add_argument("--out", metavar="FILE", help="where to write all that is wrong with the data")
    _add_common(parser, data=True)
    parser.set_defaults(run=commands.check)


def _explain(add: Add) -> None:
    parser = add("explain", help="say where a config's value comes from", description=EXPLAIN)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("key", metavar="KEY", help="such as optimizer.lr or hooks[0].patience")
    _add_common(parser)
    parser.set_defaults(run=commands.explain)


def _list(add: Add) -> None:
    parser = add("list", help="show what is registered", description=LIST)
    parser.add_argument("kind", nargs="?", metavar="KIND", help="such as models or hooks")
    parser.add_argument("name", nargs="?", metavar="NAME", help="such as resnet18")
    _add_plugin(parser, "run this file first")
    parser.set_defaults(run=commands.list_names)


def _new_plugin(add: Add) -> None:
    parser = add("new-plugin", help="write a plugin package to start from", description=NEW_PLUGIN)
    parser.add_argument("name", metavar="NAME", help="of the package, such as visreg-mynet")
    parser.add_argument("--folder", default=".", metavar="DIR", help="where to put it")
    parser.set_defaults(run=commands.new_plugin)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def _add_common(parser: Parser, *, data: bool = False) -> None:
    several: Any = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--set", **several, metavar="KEY=VALUE", help="such as optimizer.lr=0.01 hooks.0.patience=3")
    _add_plugin(parser, "a .py file that registers components")
    if data:
        root = "where datasets are; $VISREG_DATA, else data/, by default"
        parser.add_argument("--data-root", metavar="DIR", help=root)


def _add_plugin(parser: Parser, help_: str) -> None:
    parser.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE", help=help_)


TRAIN = """Train what a config describes. The run's folder (run.work_dir) then holds config.json, log.txt,
metrics.jsonl and checkpoints/. Exit codes: 0 done, 2 config, 3 data, 4 checkpoint, 5 not finite, 6 resources,
7 distributed, 8 plugin, 130 and 143 interrupted, after saving."""
TEST = "Evaluate a checkpoint, print its scores and write test.json."
PREDICT = """Write an annotated picture of each image, and predictions.json, which `python -m pydoc visreg.predict`
describes. It is for images: a model of videos, which takes clips, is refused. Of a segmentation, NAME.mask.png holds
the class of each pixel as its value (255 where the model saw nothing), in a palette of the picture's colours:
numpy.asarray(PIL.Image.open(FILE)) gives the numbers. Files that cannot be read are named, and the others done; the
exit code is then 3."""
BROWSE = """Write HTML pages of samples, with boxes, masks and labels drawn, before and after augmentation: a sample in
epoch N is the very one that training will see then. What is wrong with a sample is said beside it."""
BENCHMARK = """Time a few steps of a config with each setting that could be faster here, in turns; say what of the
results they change, and how to put the best into the config. Nothing is left on the disk."""
EXPLAIN = "Say which file or flag set a value, and what it overrode."
LIST = "Show every registered name: where it comes from, its signature and its summary."
NEW_PLUGIN = "Write a package with a model, a hook and tests, ready to pip install -e."
