"""From a config to a run: what every section does, and that no detour changes the outcome."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from tiny import StopAt, assert_same, snapshot, tiny_config

from visreg import dist
from visreg.build import build_evaluator, build_runner
from visreg.checkpoint import resume
from visreg.config import loads_json
from visreg.device import find_device
from visreg.errors import ConfigError, DataError, ResourceError
from visreg.hooks.checkpoint import Checkpoint
from visreg.hooks.console import Console
from visreg.hooks.metrics_log import MetricsLog
from visreg.loader import SampleLoader, TensorLoader
from visreg.registry import HOOKS, TRANSFORMS

CONVNET = {"type": "ConvNet", "image_size": 16}  # which has dropout, so that it draws while it trains


pytestmark = pytest.mark.usefixtures("apart")


def trained(**sections):
    runner = build_runner(tiny_config(**sections))
    runner.train()
    return runner


def batches(runner, epoch=0):
    return list(runner.train_loader.epoch(epoch))


def same_weights(one, other):
    assert_same(dict(one.task.state_dict()), dict(other.task.state_dict()))


def close_weights(one, other, **tolerance):
    for name, value in one.task.state_dict().items():
        torch.testing.assert_close(value, other.task.state_dict()[name], **tolerance)


# Batches


def test_the_same_batches_come_from_memory_and_sample_by_sample():
    made = [build_runner(tiny_config(train={"in_memory": way})) for way in ("auto", True, False)]
    assert [type(runner.train_loader) for runner in made] == [TensorLoader, TensorLoader, SampleLoader]
    for epoch in (0, 1):
        assert_same(batches(made[1], epoch), batches(made[0], epoch))
        assert_same(batches(made[2], epoch), batches(made[0], epoch))
    assert not torch.equal(batches(made[0], 1)[0]["index"], batches(made[0])[0]["index"])
    for runner in made:
        runner.train()
    same_weights(made[1], made[0])
    same_weights(made[2], made[0])


def test_only_transforms_of_single_samples_take_the_way_sample_by_sample():
    for name, loader in (
        ("Identity", TensorLoader),
        ("RandomVerticalFlip", TensorLoader),
        ("RandomInvert", SampleLoader),
    ):
        runner = build_runner(tiny_config(train={"transforms": [{"type": name}]}))
        assert isinstance(runner.train_loader, loader), name
        assert isinstance(runner.val_loader, TensorLoader)
    runner = build_runner(tiny_config(train={"transforms": [{"type": "Identity"}]}))
    assert_same(batches(runner), batches(build_runner(tiny_config())))


@pytest.mark.parametrize("in_memory", [True, False])
def test_drop_last_and_shuffle(in_memory):
    runner = build_runner(tiny_config(train={"drop_last": True, "shuffle": False, "in_memory": in_memory}))
    assert (runner.steps_per_epoch, runner.total_steps) == (3, 6)
    for epoch in (0, 1):
        assert torch.cat([batch["index"] for batch in batches(runner, epoch)]).tolist() == list(range(300))
    runner = build_runner(tiny_config(val={"shuffle": True, "in_memory": in_memory}))
    places = torch.cat([batch["index"] for batch in runner.val_loader.epoch(0)]).tolist()
    assert places != sorted(places) == list(range(355))
    assert runner.steps_per_epoch == 4


def test_the_seed_decides_order_and_weights():
    one, same, other = (build_runner(tiny_config(run={"seed": seed})) for seed in (3, 3, 4))
    assert_same(batches(one), batches(same))
    same_weights(one, same)
    assert not torch.equal(batches(one)[0]["index"], batches(other)[0]["index"])
    assert not torch.equal(one.task.model.head.weight, other.task.model.head.weight)


# Mixed labels

MIXES = {"CutMix": [{"type": "CutMix", "num_classes": 10}], "MixUp": [
    {"type": "ConvertImageDtype"}, {"type": "MixUp", "num_classes": 10},
]}  # fmt: skip


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("in_memory", [True, False])
def test_mixed_images_train_on_soft_labels_and_are_scored_on_hard_ones(name, in_memory):
    runner = build_runner(tiny_config(train={"batch_transforms": MIXES[name], "in_memory": in_memory}))
    for batch in batches(runner):
        assert batch["label"].shape == (len(batch["index"]), 10)
        torch.testing.assert_close(batch["label"].sum(1), torch.ones(len(batch["index"])))
    assert ((batches(runner)[0]["label"] > 0).sum(1) == 2).any()
    before = runner.evaluate()["accuracy"]
    runner.total_steps = 40
    runner.train()
    assert runner.scores["accuracy"] > before + 0.1
    assert next(runner.val_loader.epoch(0))["label"].dtype == torch.int64


def test_soft_labels_are_split_when_gradients_are_accumulated():
    mixed = {"batch_transforms": MIXES["CutMix"]}
    one, parts = (trained(train=mixed, run={"accumulate": count}) for count in (1, 3))
    close_weights(parts, one)


# Runs


@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_accumulating_changes_no_step(accumulate):
    one, parts = (trained(run={"accumulate": count, "epochs": 1}) for count in (1, accumulate))
    assert one.step == parts.step == 4
    close_weights(parts, one)
    torch.testing.assert_close(parts.losses["loss"], one.losses["loss"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_train_nearly_the_same(precision):
    one, other = (trained(run={"precision": name}) for name in ("fp32", precision))
    assert all(parameter.dtype == torch.float32 for parameter in other.task.parameters())
    assert not torch.equal(one.task.model.head.weight, other.task.model.head.weight)
    close_weights(other, one, rtol=0.1, atol=0.02)
    assert other.scores["accuracy"] == pytest.approx(one.scores["accuracy"], abs=0.1)
    assert other.scaler.is_enabled() == (precision == "fp16")


def test_channels_last_trains_the_same_but_for_the_last_bits():
    one, other = (trained(run={"channels_last": last}, model=CONVNET) for last in (False, True))
    kernels = [weight for weight in other.task.parameters() if weight.ndim == 4]
    assert kernels
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)
    close_weights(other, one, rtol=1e-3, atol=1e-5)


def test_a_run_with_channels_last_is_resumed_exactly(tmp_path):
    def made(folder):
        run = {"channels_last": True, "epochs": 3, "work_dir": str(tmp_path / folder)}
        hooks = [{"type": "EMA"}, {"type": "Checkpoint"}]
        return build_runner(tiny_config(run=run, hooks=hooks, model=CONVNET))

    whole = made("whole")
    whole.train()
    killed = made("killed")  # now, since building seeds what dropout draws from
    killed.total_steps = 2 * killed.steps_per_epoch
    killed.train()
    again = made("killed")
    again.load_state_dict(resume(tmp_path / "killed" / "checkpoints"))
    again.train()
    same_weights(again, whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_run_is_nearly_one_that_is_not():
    one, other = (
        trained(run={"compile": compiled}, model={"type": "LeNet", "image_size": 16}) for compiled in (False, True)
    )
    close_weights(other, one, rtol=1e-3, atol=1e-4)
    assert list(other.task.state_dict()) == list(one.task.state_dict())


def test_deterministic_runs_ask_torch_for_it_and_repeat_themselves(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.backends.cudnn.benchmark = True
    one, same = (trained(run={"deterministic": True, "epochs": 1}, model=CONVNET) for _ in range(2))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark is False
    same_weights(one, same)


def logged(folder, name="accuracy"):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if name in row]


@pytest.mark.parametrize(
    ("run", "steps"),
    [
        ({"epochs": 3}, [4, 8, 12]),
        ({"epochs": 3, "eval_every": 2}, [8, 12]),
        ({"epochs": 2, "eval_every": 9}, [8]),
        ({"steps": 6}, [4, 6]),
        ({"steps": 7, "eval_every": 3}, [3, 6, 7]),
    ],
    ids=str,
)
def test_evaluations_come_every_so_many_epochs_or_steps_and_at_the_end(run, steps, tmp_path):
    hooks = [{"type": "MetricsLog"}]
    runner = trained(run={"epochs": None, "work_dir": str(tmp_path), **run}, hooks=hooks)
    assert logged(tmp_path) == steps
    assert runner.step == runner.total_steps == steps[-1]


def test_without_validation_data_nothing_is_scored(tmp_path):
    values = tiny_config(run={"work_dir": str(tmp_path)}, metrics=[])
    del values["val"], values["metrics"]
    runner = build_runner(values)
    runner.train()
    assert (runner.step, runner.scores, runner.val_loader) == (8, {}, None)


def test_the_default_hooks_come_last_and_give_way_to_one_of_their_type():
    values = tiny_config(hooks=[{"type": "Checkpoint", "keep": 3}, {"type": "EMA"}])
    del values["default_hooks"]
    runner = build_runner(values)
    assert [type(hook).__name__ for hook in runner.hooks] == ["Checkpoint", "EMA", "Console", "MetricsLog"]
    assert runner.hooks[0].keep == 3


def test_the_checkpoint_carries_the_config():
    values = tiny_config()
    assert loads_json(build_runner(values).state_dict()["config"]) == values


@pytest.mark.parametrize(
    ("schedule", "units"),
    [
        ({"type": "StepLR", "step_size": 1}, (0, 1, 0)),
        ({"type": "StepLR", "step_size": 1, "every": "step"}, (1, 0, 0)),
        ([{"type": "Constant", "warmup_steps": 2}, {"type": "CosineAnnealingLR"}], (1, 1, 0)),
        ({"type": "ReduceLROnPlateau", "mode": "max", "monitor": "accuracy"}, (0, 0, 1)),
    ],
    ids=str,
)
def test_schedules_are_counted_as_they_ask(schedule, units):
    made = trained(schedule=schedule).schedule
    assert (len(made.per_step), len(made.per_epoch), len(made.per_eval)) == units
    for scheduler in made.per_step:
        assert scheduler.last_epoch == 8
    for scheduler in made.per_epoch:
        assert scheduler.last_epoch == 2
        assert getattr(scheduler, "T_max", 2) == 2


# Runs apart


def test_two_runners_in_one_process_share_nothing():
    alone = trained(hooks=[{"type": "EMA"}])
    one, other = (build_runner(tiny_config(hooks=[{"type": "EMA"}])) for _ in range(2))
    other.total_steps = 3
    other.train()
    one.train()
    assert_same(snapshot(one), snapshot(alone))
    assert other.step == 3
    mine, theirs = ({id(part) for part in (*runner.hooks, *runner.metrics)} for runner in (one, other))
    assert not mine & theirs
    pointers = [{value.data_ptr() for value in runner.task.state_dict().values()} for runner in (one, other)]
    assert not pointers[0] & pointers[1]


def test_after_building_the_generator_depends_on_the_config_alone():
    found = []
    for before in (1, 2):
        torch.manual_seed(before)
        build_runner(tiny_config(model=CONVNET))
        found.append(torch.get_rng_state())
    assert torch.equal(*found)
    build_runner(tiny_config(model=CONVNET, run={"seed": 1}))
    assert not torch.equal(torch.get_rng_state(), found[0])


def test_processes_begin_with_the_same_weights_and_draw_different_numbers(monkeypatch):
    monkeypatch.setattr(dist, "join", lambda device: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    made, states, indices = [], [], []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        made.append(build_runner(tiny_config(model=CONVNET)))
        states.append(torch.get_rng_state())
        indices.append(torch.cat([batch["index"] for batch in batches(made[-1])]).tolist())
    same_weights(*made)
    assert not torch.equal(*states)
    assert Path("unused").is_dir()
    mine, theirs = indices
    assert len(mine) == len(theirs) == 177
    assert not set(mine) & set(theirs)


def test_building_leaves_python_numpy_and_the_flags_alone():
    random.seed(1)
    numpy.random.seed(1)
    before = random.getstate(), numpy.random.get_state()[1].tolist()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    build_runner(tiny_config(model=CONVNET))
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()


# Resuming


class Noisy:
    """Draws from all three generators."""

    def __call__(self, sample):
        noise = torch.rand(()) + random.random() + float(numpy.random.rand())
        return {**sample, "image": (sample["image"] * (noise / 3)).to(torch.uint8)}


def augmented(work_dir, workers):
    TRANSFORMS.register(Noisy)
    transforms = [{"type": "RandomCrop", "size": 16, "padding": 2}, {"type": "RandomPerspective"}, {"type": "Noisy"}]
    return tiny_config(
        model=CONVNET, train={"transforms": transforms, "workers": workers}, run={"work_dir": str(work_dir)},
        hooks=[{"type": "Checkpoint", "every_steps": 1}], schedule={"type": "Cosine", "warmup_steps": 2},
    )  # fmt: skip


def state_of(runner):
    return {name: value for name, value in snapshot(runner).items() if name != "config"}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    runner = build_runner(augmented(tmp_path_factory.mktemp("unbroken"), 0))
    runner.train()
    TRANSFORMS.files.pop("Noisy")
    return state_of(runner)


@pytest.mark.parametrize("lives", [(0, 2, 1), (2, 0), (1, 2, 0)], ids=str)
def test_a_run_that_is_resumed_in_mid_epoch_with_other_workers_ends_the_same(lives, unbroken, tmp_path):
    for number, workers in enumerate(lives):
        runner = build_runner(augmented(tmp_path, workers))
        assert runner.train_loader.workers == workers
        state = resume(tmp_path / "checkpoints")
        assert (state is None) == (number == 0)
        if state is not None:
            runner.load_state_dict(state)
        if number < len(lives) - 1:  # step 3 is in the first epoch, 6 in the second
            runner.hooks = [*runner.hooks, StopAt(3 * (number + 1), "crash")]
            runner.__attrs_post_init__()  # which finds out what the hooks override
            with pytest.raises(RuntimeError, match="killed"):
                runner.train()
            torch.manual_seed(99)
        else:
            runner.train()
    assert_same(state_of(runner), unbroken)


@pytest.mark.parametrize("name", MIXES)
def test_mixing_goes_on_where_it_was(name, tmp_path):
    def build(folder, stop=0):
        runner = build_runner(tiny_config(train={"batch_transforms": MIXES[name]}, model=CONVNET))
        runner.work_dir = folder
        runner.hooks = [StopAt(stop), Checkpoint(every_steps=1)]
        runner.__attrs_post_init__()
        return runner

    whole, first, second = build(tmp_path / "whole"), build(tmp_path, 3), build(tmp_path)
    build(tmp_path)  # which seeds the generator
    whole.train()
    build(tmp_path)
    first.train()
    assert first.step == 3
    second.load_state_dict(resume(tmp_path / "checkpoints"))
    second.train()
    same_weights(second, whole)
    assert second.scores == whole.scores


# What is refused


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(ResourceError, match=r"run\.device: 'cuda:1' asks for GPU 1.*use 'auto' or 'cpu'"):
        build_runner(tiny_config(run={"device": "cuda:1"}))


def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("RANK", "5"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "6")):
        monkeypatch.setenv(name, value)
    assert find_device("auto") == find_device("cuda") == torch.device("cuda", 1)
    assert find_device("cuda:0") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ResourceError, match=r"asks for GPU 2.*sees 2"):
        find_device("auto")


def test_a_run_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot write the run's folder: Not a directory; set run\.work_dir"):
        build_runner(tiny_config(run={"work_dir": str(tmp_path / "file" / "work")}))


@pytest.fixture
def folders(tmp_path):
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "images" / name / "1.png")
    return {"dataset": {"type": "ImageFolder", "root": "images", "channels": 1}, "batch_size": 2}


def test_images_of_different_sizes_cannot_be_held_in_memory(folders, tmp_path):
    Image.new("RGB", (16, 17)).save(tmp_path / "images" / "b" / "1.png")
    with pytest.raises(DataError, match=r"train\.in_memory: images cannot be held in memory: 'image' of sample 1"):
        build_runner(
            tiny_config(
                train={**folders, "in_memory": True},
                val=folders,
                model={"type": "MLP", "image_size": 16, "num_classes": 2},
            )
        )


def test_classes_that_only_show_when_the_data_is_read_are_checked_then(folders):
    sections = {"train": folders, "val": folders}
    with pytest.raises(ConfigError, match=r"model\.num_classes: the model has 10 outputs for the 2 classes"):
        build_runner(tiny_config(**sections))
    runner = build_runner(tiny_config(**sections, model={"type": "MLP", "image_size": 16, "num_classes": 2}))
    assert runner.task.training
    runner.train()
    assert runner.step == 2


def test_a_batch_larger_than_the_data_is_refused_where_full_ones_are_asked_for():
    with pytest.raises(DataError, match="has 355 samples, which is less than one batch of 500"):
        build_runner(tiny_config(train={"batch_size": 500, "drop_last": True}))


def test_mistakes_come_before_anything_is_built(tmp_path):
    work_dir = tmp_path / "work"
    with pytest.raises(ConfigError) as caught:
        build_runner(
            tiny_config(run={"work_dir": str(work_dir)}, model={"type": "MLP", "withs": [1]}, loss={"type": "X"})
        )
    assert {problem.path for problem in caught.value.problems} == {"model.withs", "loss.type"}
    assert not work_dir.exists()


def test_a_constructor_that_fails_only_now_is_placed():
    made = []

    @HOOKS.register
    class Moody(MetricsLog):
        """Fails the second time, when it is not tried but made."""

        def __init__(self):
            super().__init__()
            made.append(self)
            if len(made) > 1:
                raise OSError("not today")

    with pytest.raises(ConfigError, match=r"hooks.*OSError: not today \(while building 'Moody' from hooks"):
        build_runner(tiny_config(hooks=[{"type": "Moody"}]))


# Evaluators


def test_an_evaluator_reads_one_split_and_has_no_optimizer():
    missing = {"dataset": {"type": "ImageFolder", "root": "nowhere", "channels": 1}, "batch_size": 10}
    runner = build_evaluator(tiny_config(train=missing), "val")
    assert (runner.train_loader, runner.optimizer, runner.step) == (None, None, 0)
    assert runner.evaluate().keys() == {"accuracy"}
    assert not any(isinstance(hook, Console) for hook in runner.hooks)


def test_an_evaluator_of_a_section_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="test: the config has no section 'test'"):
        build_evaluator(tiny_config(), "test")
    assert not Path("nowhere").exists()


def test_labels_beyond_the_outputs_are_found_before_training(tmp_path):
    """Of data that does not tell its classes, only a look at it can tell that the model has too few outputs."""
    (tmp_path / "plain.py").write_text(
        "import torch\nfrom visreg import DATASETS\n"
        "@DATASETS.register\nclass Plain:\n"
        "    def __len__(self):\n        return 8\n"
        "    def __getitem__(self, index):\n"
        "        return {'image': torch.zeros(1, 28, 28, dtype=torch.uint8), 'label': index}\n"
    )
    with pytest.raises(ConfigError, match="has 3 outputs, and there is a label 7") as caught:
        build_runner(
            tiny_config(
                model={"type": "MLP", "num_classes": 3},
                train={"dataset": {"type": "Plain"}, "batch_size": 8},
                val={"dataset": {"type": "Plain"}, "batch_size": 8},
            ),
            [tmp_path / "plain.py"],
        )
    assert caught.value.problems[0].path == "model.num_classes"


def test_splits_that_mean_other_classes_by_an_index_are_refused(apart):
    for split, names in (("train", ("ant", "bee", "cat")), ("val", ("ant", "cat", "dog"))):
        for name in names:
            Path("images", split, name).mkdir(parents=True)
            Image.new("L", (16, 16)).save(Path("images", split, name, "1.png"))
    folder = {"type": "ImageFolder", "root": "images", "channels": 1}
    sections = {split: {"dataset": {**folder, "split": split}, "batch_size": 2} for split in ("train", "val")}
    with pytest.raises(DataError) as caught:
        build_runner(tiny_config(model={"num_classes": 3}, **sections))
    assert str(caught.value).splitlines() == [
        "val.dataset: the classes of 'label' are not those of train:",
        "  1: 'bee' in train, 'cat' in val",
        "  2: 'cat' in train, 'dog' in val",
    ]
