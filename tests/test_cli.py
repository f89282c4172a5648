"""The commands, as a user gives them: what they print, write and exit with."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import visreg
from tests.conftest import ROOT
from visreg.checkpoint import load
from visreg.cli import main
from visreg.errors import ResourceError


def run(*arguments):
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code


def newest(config: Path):
    return max((config.parent / "work" / "checkpoints").glob("step_*.pt"))


def last_scores(config: Path):
    rows = [json.loads(line) for line in (config.parent / "work" / "metrics.jsonl").read_text().splitlines()]
    return next(row for row in reversed(rows) if "accuracy" in row)


def test_trains_then_tests_with_the_very_same_scores(small, capsys):
    assert run("train", small, "--set", 'hooks=[{"type": "EMA", "decay": 0.9}]') == 0
    work = small.parent / "work"
    assert {path.name for path in work.iterdir()} >= {"config.json", "log.txt", "metrics.jsonl", "checkpoints"}
    assert "digits" in capsys.readouterr().out
    assert "epoch 2/2" in (work / "log.txt").read_text()
    trained = last_scores(small)
    assert trained["accuracy"] > 0.5
    assert "digits" in trained["data"]
    assert run("test", newest(small)) == 0
    tested = json.loads((work / "test.json").read_text())
    assert tested["scores"] == {"accuracy": trained["accuracy"]}
    assert f"{trained['accuracy']:.4f}" in capsys.readouterr().out
    assert (
        run("test", small, newest(small), "--out", small.parent / "other.json", "--set", 'hooks=[{"type": "EMA"}]') == 0
    )
    assert json.loads((small.parent / "other.json").read_text())["scores"] == tested["scores"]


def test_test_prefers_the_test_section(small, capsys):
    small.write_text(small.read_text() + "test = dict(val, batch_size=7)\n")
    assert run("train", small) == 0
    assert run("test", newest(small)) == 0
    assert ", test on digits" in capsys.readouterr().out
    assert run("test", newest(small), "--split", "val") == 0
    assert ", val on digits" in capsys.readouterr().out


def test_resuming_equals_never_stopping(small, tmp_path):
    assert run("train", small, "--work-dir", tmp_path / "whole", "--set", "run.epochs=4") == 0
    assert run("train", small, "--set", "run.epochs=4 ", "run.seed=0", "run.steps=None", "run.epochs=2") == 0
    assert run("train", small, "--resume", "--set", "run.epochs=4") == 0
    whole, resumed = load(max((tmp_path / "whole" / "checkpoints").glob("*.pt"))), load(newest(small))
    assert whole["step"] == resumed["step"]
    for name, value in whole["task"].items():
        assert torch.equal(value, resumed["task"][name]), name
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "work")]
    assert rows[0] == rows[1]


def test_resuming_a_finished_run_changes_nothing(small, capsys):
    assert run("train", small) == 0
    before = load(newest(small))
    assert run("train", small, "--resume") == 0
    assert load(newest(small))["step"] == before["step"]
    out = capsys.readouterr().out
    assert "resumed at step" in out
    assert "nothing is left to do" in out


def test_resume_without_a_checkpoint_says_so(small, capsys):
    assert run("train", small, "--resume") == 0
    assert "nothing to resume" in capsys.readouterr().out


def test_set_may_come_before_the_config(small, capsys):
    assert run("check", "--set", "optimizer.lr=0.3", "run.epochs=1", small) == 0
    assert run("explain", "--set", "optimizer.lr=0.3", "--set", "run.epochs=1", small, "optimizer.lr") == 0
    assert "optimizer.lr = 0.3" in capsys.readouterr().out


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"visreg {visreg.__version__}\n"


def test_check_lists_every_mistake_with_its_place(small, capsys):
    small.write_text(small.read_text().replace("num_classes", "num_clases").replace("momentum", "momentun"))
    assert run("check", small) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("small.py:3: model.num_clases: no such option; did you mean 'num_classes'?")
    assert lines[1].endswith("small.py:6: optimizer.momentun: no such option; did you mean 'momentum'?")
    assert "2 mistakes" in lines[2]
    assert not (small.parent / "work").exists()


def test_explain_says_what_won(small, capsys):
    assert run("explain", small, "optimizer.lr", "--set", "optimizer.lr=0.3") == 0
    out = capsys.readouterr().out
    assert "0.3" in out
    assert "--set optimizer.lr=0.3" in out
    assert "small.py:6" in out


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--set", "optimizer.lrr=1"], 2, "did you mean 'lr'?"),
        (["--set", "optimzer.lr=1"], 2, "did you mean 'optimizer'?"),
        (["--set", "train.batch_size=2000", "train.drop_last=True"], 3, "less than one batch of 2000"),
        (["--set", "run.device='cuda:7'"], 6, "asks for GPU 7"),
        (["--set", 'train.dataset={"type": "ImageFolder", "root": "no/such/folder"}'], 3, "no/such/folder"),
        (["--resume", "no_such_file.pt"], 4, "no_such_file.pt"),
        (["--plugin", "no_such_plugin.py"], 8, "no_such_plugin.py"),
    ],
)
def test_bad_input_has_one_message_and_its_exit_code(small, capsys, change, code, message):
    if code == 6 and torch.cuda.device_count() > 7:
        pytest.skip("there is such a GPU")
    assert run("train", small, *change) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(", "config.py:1"),
        ("_base_ = 'absent.py'", "absent.py"),
        ("_base_ = 'config.py'", "config.py"),
        ("model = 1 / 0", "config.py:1"),
        ("", "missing"),
    ],
)
def test_a_config_that_cannot_be_read_has_one_message(tmp_path, capsys, text, message):
    (tmp_path / "config.py").write_text(text)
    assert run("train", tmp_path / "config.py") == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_the_log_has_the_device_the_folder_and_what_ended_the_run(small, monkeypatch):
    def full(*_):
        raise ResourceError("disk: no space left")

    monkeypatch.setattr("visreg.hooks.checkpoint.save", full)
    assert run("train", small, "--set", "run.epochs=1") == 6
    log = (small.parent / "work" / "log.txt").read_text()
    assert f"training on cpu; what is kept of it goes to {small.parent / 'work'}" in log
    assert "ERROR disk: no space left" in log


def test_a_disk_that_is_full_from_the_start_has_one_message(small, monkeypatch, capsys):
    work = small.parent / "work"
    work.mkdir()
    (work / "config.json").write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert run("train", small) == 6
    assert (
        capsys.readouterr().err == f"error: {work / 'config.json'}: cannot write the config: No space left on device\n"
    )
    assert (work / "config.json").read_text() == "old"


def test_an_unwritable_work_dir_is_found_before_training(small, capsys):
    (small.parent / "file").write_text("")
    assert run("train", small, "--work-dir", small.parent / "file" / "work") == 6
    assert "set run.work_dir" in capsys.readouterr().err


def test_damaged_and_foreign_checkpoints_are_named(small, capsys):
    assert run("train", small) == 0
    path = newest(small)
    assert run("train", small, "--resume", path, "--resume-override", "--set", "model.widths=[8]") == 4
    err = capsys.readouterr().err
    assert "another model" in err
    assert "features.0.weight: (16, 784) in the checkpoint, (8, 784) in the model" in err
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert run("test", path) == 4
    assert "damaged" in capsys.readouterr().err
    assert run("train", small, "--resume") == 0
    assert f"{path}: the checkpoint is damaged" in capsys.readouterr().out
    found = [*path.parent.glob("step_*.pt")]
    for one in found:
        one.write_bytes(one.read_bytes()[:-1])
    assert run("train", small, "--resume") == 4
    err = capsys.readouterr().err
    assert all(str(one) in err for one in found)
    assert "train without --resume" in err
    assert "Traceback" not in err


def test_a_constructor_that_raises_is_placed(small, capsys):
    small.with_name("parts.py").write_text(
        "from torch import nn\nfrom visreg import MODELS\n"
        "@MODELS.register\nclass Grumpy(nn.Module):\n"
        "    def __init__(self, mood: int = 1):\n        raise ValueError('not today')\n"
    )
    small.write_text(small.read_text() + "plugins = ['./parts.py']\nmodel = dict(type='Grumpy', mood=3)\n")
    assert run("train", small) == 2
    err = capsys.readouterr().err
    assert "small.py:12: model" in err
    assert "not today" in err
    assert "Grumpy" in err
    assert "mood=3" in err


def command(*arguments):
    return [sys.executable, "-m", "visreg", *map(str, arguments)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_goes_on_from_there(small, number, code, tmp_path):
    many = ["--set", "run.epochs=400"]
    arguments = command("train", small, *many)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        while "epoch 2/" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == code, rest
    assert "--resume goes on from there" in rest
    state = load(newest(small))
    assert 0 < state["step"] < 400 * 6
    end = state["step"] + 3
    steps = ["--set", f"run.steps={end}", "run.epochs=None", "run.eval_every=6"]
    assert run("train", small, "--resume", *steps) == 0
    assert run("train", small, "--work-dir", tmp_path / "whole", *steps) == 0
    whole, resumed = load(max((tmp_path / "whole" / "checkpoints").glob("*.pt"))), load(newest(small))
    assert all(torch.equal(value, resumed["task"][name]) for name, value in whole["task"].items())


def test_two_processes_train_as_one(small, tmp_path):
    """Gradients are averaged, metrics are over all samples, files are written once."""
    config = ["--set", "train.batch_size=100", "val.batch_size=100"]
    assert run("train", small, "--work-dir", tmp_path / "one", *config) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    arguments = [str(ROOT / "tools" / "train.py"), str(small), *config]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall("epoch 2/2", done.stdout)) == 1
    one, two = load(max((tmp_path / "one" / "checkpoints").glob("*.pt"))), load(newest(small))
    for name, value in one["task"].items():
        torch.testing.assert_close(value, two["task"][name], rtol=1e-4, atol=1e-5)
    assert one["scores"] == pytest.approx(two["scores"], abs=0.004)  # at most one of the 360 on the border


@pytest.mark.parametrize("tool", ["train", "test"])
def test_tools_pass_their_arguments_on(tool):
    done = subprocess.run([sys.executable, ROOT / "tools" / f"{tool}.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert f"visreg {tool}" in done.stdout


def test_the_package_is_the_command(tmp_path):
    done = subprocess.run(command("--help"), capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("usage: visreg [-h]")
    done = subprocess.run(command("train", "gone.py"), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("no such config file: 'gone.py'\n")


def test_help_does_not_import_torch():
    code = "import sys, visreg.cli\ntry: visreg.cli.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_a_check_of_a_small_model_imports_little_more_than_torch():
    late = "('torch._dynamo', 'sympy', 'torchvision', 'PIL', 'numpy.random')"  # a second and more of imports
    code = "import sys, visreg.cli\ntry: visreg.cli.main(['check', 'configs/cnn_mnist.py'])"
    code = f"{code}\nexcept SystemExit: pass\nprint([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.endswith("no mistakes found\n[]\n")


def test_a_closed_stdout_does_not_stop_training(small):
    pipe = subprocess.PIPE
    with subprocess.Popen(command("train", small), stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert load(newest(small))["step"] > 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["check {config}", "list models MLP", "explain {config} model", "--help"])
def test_a_reader_that_has_seen_enough_ends_a_command_in_silence(small, words, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = command(*(word.format(config=small) for word in words.split()))
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [("train", "{config}"), ("check", "{config}"), ("list",)])
@pytest.mark.parametrize(("stdout", "code"), [(">&-", 0), (">/dev/full", 6)])
def test_no_stdout_or_a_full_one_is_no_crash(small, arguments, stdout, code):
    words = shlex.join(command(*(argument.format(config=small) for argument in arguments)))
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(f"{words} {stdout}", shell=True, capture_output=True, text=True, cwd=ROOT, env=buffered)
    assert done.returncode == (0 if arguments[0] == "train" else code), done.stderr  # whose own log is a file
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr


def test_waits_for_no_host_that_cannot_be_reached(small, tmp_path, capsys):
    """MNIST is not there and cannot be downloaded: within seconds the digits are taken, and everybody is told."""
    train = {"type": "FirstAvailable", "datasets": [{"type": "MNIST", "root": str(tmp_path)}, {"type": "Digits"}]}
    started = time.monotonic()
    assert run("train", small, "--set", f"train.dataset={train}", "run.epochs=1") == 0
    out = capsys.readouterr().out
    if "USING DIGITS" in out:  # else there is a network here
        assert "MNIST is not available" in out
        assert time.monotonic() - started < 60
