"""Decoded samples that are kept: the same samples, whoever makes them, whatever happens to the file."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import ImageFilter
from test_picture import photo
from tiny import assert_same, tiny_config

from visreg import cache as module
from visreg.build import build_runner
from visreg.build_cache import _files, open_cache
from visreg.cache import Cache
from visreg.cache_file import ENTRY, HEADER, MAGIC, cache_root, drop_disused
from visreg.check import check_config
from visreg.config import config_from
from visreg.datasets.folder import ImageFolder
from visreg.datasets.selection import Repeat
from visreg.errors import ConfigError, DataError
from visreg.registry import TRANSFORMS
from visreg.samples import Samples

pytestmark = pytest.mark.usefixtures("apart")

CROP = [{"type": "RandomResizedCrop", "size": 32}, {"type": "RandomHorizontalFlip"}]
RESIZED = [{"type": "Resize", "size": 48}, *CROP, {"type": "ToDtype", "dtype": "float32", "scale": True}]
KEYS = [(1, index) for index in range(10)]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("VISREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "RESERVE", 0)
    monkeypatch.setattr(module, "BETWEEN", 0)
    for number in range(10):
        place = tmp_path / "pictures" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        photo(100 + number, 130 - number, seed=number).save(place / f"{number}.jpg")
    return tmp_path / "pictures"


def opened(root, specs=tuple(CROP), kind="disk", draft=True, times=0):
    """Return what makes samples, and its cache."""
    dataset = ImageFolder(root=str(root))
    dataset = Repeat(dataset=dataset, times=times) if times else dataset
    dataset.open()
    transforms = [TRANSFORMS.build(spec) for spec in specs]
    kept = open_cache(kind, dataset, transforms, [{"root": str(root)}, *specs], draft, False)[0] if kind else None
    return Samples(dataset=dataset, transforms=transforms, seed=3, draft=draft, cache=kept), kept


def batch(root, *args, keys=KEYS, **options):
    return opened(root, *args, **options)[0].batch(keys)[0]


@pytest.mark.parametrize("specs", [[], CROP, RESIZED])
@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_samples_are_the_same_kept_or_not(root, specs, kind):
    if not specs:
        specs = [{"type": "Resize", "size": [20, 20]}]
    expected = batch(root, specs, kind=None, draft=specs is not CROP)
    samples, kept = opened(root, specs, kind)
    assert kept.held() == 0
    assert kept.first == (0 if specs is CROP else 1)
    for _ in range(3):
        assert_same(samples.batch(KEYS)[0], expected)
        assert kept.held() == 10
    one_by_one = [samples.sample(key) for key in KEYS]
    assert_same(torch.stack([sample["image"] for sample in one_by_one]), expected["image"])
    assert kept.news() == []


def test_what_is_kept_is_not_decoded_again(root, monkeypatch):
    expected = batch(root)
    monkeypatch.setattr(ImageFolder, "unread", lambda self, index, epoch: pytest.fail("it is decoded again"))
    dataset = ImageFolder(root=str(root))
    dataset.open()
    path = next(cache_root().glob("pictures-*.samples"))
    kept = Cache(path=str(path), slots=torch.tensor([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]).argsort().argsort())
    assert kept.held() == 10
    assert expected["image"].shape == (10, 3, 32, 32)


def test_a_sample_that_comes_twice_is_kept_once(root):
    samples, kept = opened(root, times=3)
    assert len(samples.dataset) == 30
    samples.batch([(0, index) for index in range(30)])
    assert kept.held() == kept.entries == 10


def test_a_kept_sample_cannot_be_spoilt(root):
    def spoil(sample):
        sample["image"].fill_(0)
        return sample

    samples, _ = opened(root, [{"type": "Resize", "size": [40, 40]}])
    expected = samples.batch(KEYS)[0]["image"]
    again, _ = opened(root, [{"type": "Resize", "size": [40, 40]}])
    again._rest = [spoil]
    again.batch(KEYS)
    again._rest = []
    assert torch.equal(again.batch(KEYS)[0]["image"], expected)


# Damage, and change


@pytest.mark.parametrize("place", ["record", "entry", "end"])
def test_a_damaged_record_is_named_and_made_again(root, place):
    expected = batch(root)
    path = next(cache_root().glob("*.samples"))
    content = bytearray(path.read_bytes())
    start, length, _, _ = ENTRY.unpack_from(content, HEADER + 3 * ENTRY.size)
    if place == "end":
        content = content[: start + length // 2]
    else:
        content[start + length // 2 if place == "record" else HEADER + 3 * ENTRY.size + 9] ^= 4
    path.write_bytes(content)
    samples, kept = opened(root)
    assert_same(samples.batch(KEYS)[0], expected)
    (line,) = kept.news()
    several = "samples 3, 4, 5, 6, 7 and 2 more were damaged, and were decoded again"
    assert (several if place == "end" else "sample 3 was damaged, and was decoded again") in line
    assert str(path) in line
    assert kept.news() == []
    again, kept = opened(root)
    assert_same(again.batch(KEYS)[0], expected)
    assert kept.held() == 10
    assert kept.news() == []


@pytest.mark.parametrize("content", [b"", b"nonsense", MAGIC + bytes(48)])
def test_a_file_that_is_no_cache_is_replaced(root, content):
    expected = batch(root)
    next(cache_root().glob("*.samples")).write_bytes(content)
    samples, kept = opened(root)
    assert kept.held() == 0
    assert_same(samples.batch(KEYS)[0], expected)


def changed(root):
    photo(90, 70, seed=77).save(root / "a" / "4.jpg")


def touched(root):
    os.utime(root / "a" / "4.jpg", ns=(1, 1))


def added(root):
    photo(90, 70, seed=77).save(root / "a" / "11.jpg")


@pytest.mark.parametrize("change", [changed, touched, added])
def test_it_is_begun_anew_when_the_data_changes(root, change):
    batch(root)
    change(root)
    expected = batch(root, kind=None, draft=False)
    samples, kept = opened(root)
    assert kept.held() == 0
    assert_same(samples.batch(KEYS)[0], expected)
    assert len(list(cache_root().iterdir())) == 1


def test_other_transforms_and_decoding_have_files_of_their_own(root):
    for specs, draft in ((CROP, True), (CROP, False), (RESIZED, True), (RESIZED[1:3], True), (RESIZED[:1], True)):
        batch(root, specs, draft=draft, keys=KEYS[:1])
    assert len(list(cache_root().iterdir())) == 3  # what comes after the fixed ones makes no difference


def test_a_cache_that_was_begun_anew_is_left_to_whoever_began_it(root):
    batch(root)
    _, kept = opened(root)
    added(root)
    batch(root, keys=KEYS[:2])  # by another run, whose samples have other places
    kept._opened = None  # as in a worker that begins later
    assert kept.get(0) is None
    assert int(kept.states[-1]) == errno.ESTALE


def month_old(path, content):
    path.write_bytes(content)
    os.utime(path, (time.time() - 31 * 86400,) * 2)
    return path


def test_what_nobody_has_used_for_a_month_is_deleted(root, tmp_path):
    folder, content = cache_root(), MAGIC + bytes(100)
    folder.mkdir()
    old = [month_old(folder / name, content) for name in ("a-0.samples", "b-0.samples.partial")]
    foreign = month_old(folder / "c-0.samples", b"somebody else's")
    elsewhere = month_old(tmp_path / "d-0.samples", content)
    (folder / "d-0.samples").symlink_to(elsewhere)
    used = Cache(path=str(month_old(folder / "e-0.samples", content)), slots=torch.tensor([0]))
    used.open()
    young = folder / "f-0.samples"
    young.write_bytes(content)
    dataset, transforms, specs = ImageFolder(root=str(root)), [], [{"root": str(root)}]
    dataset.open()
    kept, told = open_cache("disk", dataset, transforms, specs, True, False)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in (foreign, elsewhere, folder / "d-0.samples", Path(used.path), young))
    assert "deleted a-0.samples (0.0 MB), which nobody had used for 30 days; deleted b-0.samples.partial (" in told
    del used
    month_old(Path(kept.path), Path(kept.path).read_bytes())
    _, told = open_cache("disk", dataset, transforms, specs, True, False)  # which is its being used
    assert Path(kept.path).stat().st_mtime > time.time() - 60
    assert "deleted e-0.samples" in told
    assert "f-0" not in told


def test_the_caches_of_other_users_stay(root, monkeypatch):
    """They may be in daily use by who can read them alone, and so leaves no sign of it."""
    cache_root().mkdir()
    old = month_old(cache_root() / "a-0.samples", MAGIC + bytes(100))
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: old.stat().st_uid + 1)
        assert drop_disused() == {}
    assert [*drop_disused()] == [old]


CODE = """
from visreg import TRANSFORMS

@TRANSFORMS.register
class Darker:
    fixed = True

    def __call__(self, sample):
        return {**sample, "image": sample["image"] // %d}
"""


def test_it_is_begun_anew_when_the_code_of_a_transform_changes(root, caplog):
    file = root.parent / "darker.py"
    options = {"transforms": [{"type": "Darker"}, *CROP], "cache": "disk", "in_memory": False}
    found = []
    with caplog.at_level(logging.INFO, logger="visreg"):
        for by in (2, 2, 4):
            file.write_text(CODE % by)
            os.utime(file, ns=(by, by))  # so that it is read again, however quickly this was
            values = {**config(root, **options), "val": None}
            found.append(list(build_runner(values, [file]).train_loader.epoch(1)))
    assert_same(found[0], found[1])
    assert not torch.equal(found[0][0]["image"], found[2][0]["image"])
    assert caplog.text.count("where 10 of 10 are") == 1
    assert caplog.text.count("begun anew, since the code in darker.py changed") == 1


def test_other_versions_of_what_decodes_begin_it_anew(root, monkeypatch):
    batch(root)
    monkeypatch.setattr("visreg.build_cache._version", lambda package: f"{package} 99")
    dataset, specs = ImageFolder(root=str(root)), [{"root": str(root)}, *CROP]
    dataset.open()
    transforms = [TRANSFORMS.build(spec) for spec in CROP]
    told = open_cache("disk", dataset, transforms, specs, True, False)[1]
    assert "begun anew, since av or faster-coco-eval or pillow or torch or torchvision or visreg changed" in told


def test_code_that_nobody_can_see_change_is_kept_in_memory_alone(root, monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # as at a prompt
    monkeypatch.setattr(TRANSFORMS, "files", dict(TRANSFORMS.files))
    made: dict[str, object] = {"__name__": "__main__"}
    exec(CODE % 2, made)
    options = {"transforms": [{"type": "Darker"}, *CROP], "in_memory": False}
    build_runner({**config(root, **options, cache="ram"), "val": None})
    message = r"^train\.cache: Darker was made at a prompt, so that nobody can see .* into a file, or take cache='ram'$"
    with pytest.raises(DataError, match=message):
        build_runner({**config(root, **options, cache="disk"), "val": None})


def test_the_code_of_what_decodes_is_known_by_its_version(monkeypatch):
    class Soft(ImageFilter.BoxBlur):
        pass

    monkeypatch.setattr(TRANSFORMS, "files", dict(TRANSFORMS.files))
    TRANSFORMS.register(Soft)
    assert {*_files(TRANSFORMS, {"type": "Soft"})} == {__file__}


# Many at once, and what runs out


def fill(root, order):
    Path(root).joinpath("ready").touch()
    samples, kept = opened(root)
    for index in order:
        samples.batch([(1, index)])
    kept.held()


def test_processes_fill_it_together(root):
    expected = batch(root, kind=None, draft=False)
    orders = [range(10), range(9, -1, -1), [*range(5, 10), *range(5)]]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fill, args=(root, order)) for order in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    samples, kept = opened(root)
    assert kept.held() == 10
    assert_same(samples.batch(KEYS)[0], expected)
    assert kept.news() == []


KILLED = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_cache import KEYS, opened
from visreg import cache
cache.RESERVE = 0
samples, kept = opened(Path({root!r}))
samples.batch(KEYS[:4])
write = os.writev
os.writev = lambda fd, parts: (os.write(fd, b"half of it"), os._exit(9))
samples.batch(KEYS)
"""


def test_a_process_that_is_killed_amid_a_record_does_no_harm(root):
    expected = batch(root, kind=None, draft=False)
    code = KILLED.format(path=[str(Path(__file__).parent)], root=str(root))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    samples, kept = opened(root)
    assert kept.held() == 4
    assert_same(samples.batch(KEYS)[0], expected)
    assert kept.held() == 10
    assert kept.news() == []


def test_a_full_disk_stops_nothing(root, monkeypatch):
    expected = batch(root, kind=None, draft=False)
    samples, kept = opened(root)
    samples.batch(KEYS[:3])
    monkeypatch.setattr(module, "RESERVE", 1 << 60)
    for _ in range(2):
        assert_same(samples.batch(KEYS)[0], expected)
    (line,) = kept.news()
    assert "GiB of the disk would be left free: 3 of 10 samples are kept; no more will be" in line
    assert kept.news() == []
    assert "would be left free: 3 of 10" in opened(root)[1].news()[0]  # at once


def read_only(monkeypatch):
    def refuse(path, flags, *args):
        if flags & (os.O_RDWR | os.O_WRONLY) and str(path).endswith(".samples"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return plain(path, flags, *args)

    plain = os.open
    monkeypatch.setattr(os, "open", refuse)


def test_what_can_only_be_read_is_read(root, monkeypatch):
    expected = batch(root)
    read_only(monkeypatch)
    samples, kept = opened(root)
    assert_same(samples.batch(KEYS)[0], expected)
    assert kept.news() == []


def test_what_cannot_be_added_is_told_at_once(root, monkeypatch):
    expected = batch(root, kind=None, draft=False)
    batch(root, keys=KEYS[:3])
    read_only(monkeypatch)
    samples, kept = opened(root)
    assert "Read-only file system: 3 of 10 samples are kept; no more will be" in kept.news()[0]
    assert_same(samples.batch(KEYS)[0], expected)
    assert kept.news() == []


def test_a_file_that_cannot_be_opened_is_named(root, monkeypatch):
    batch(root)
    path = next(cache_root().glob("*.samples"))
    plain = os.open
    refusal = PermissionError(errno.EACCES, "Permission denied")

    def refuse(name, *args):
        if str(name) == str(path):
            raise refusal
        return plain(name, *args)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DataError, match=f"{path}: cannot be opened: Permission denied"):
        opened(root)


def test_a_cache_that_is_deleted_stops_nothing(root):
    expected = batch(root)
    samples, kept = opened(root)
    Path(kept.path).unlink()
    kept._opened = None
    assert_same(samples.batch(KEYS)[0], expected)


def test_it_can_be_sent_to_another_process(root):
    samples, kept = opened(root, kind="ram")
    expected = samples.batch(KEYS)[0]
    dataset, transforms = samples.dataset, samples.transforms
    copy = pickle.loads(pickle.dumps(kept))
    assert copy.held() == 10
    assert_same(Samples(dataset=dataset, transforms=transforms, seed=3, cache=copy).batch(KEYS)[0], expected)


def test_where_it_is(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("VISREG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_root() == Path("/x/visreg")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "visreg"


def test_a_place_that_cannot_be_written_to_is_named(root, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VISREG_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"file: samples cannot be kept there: .*; set VISREG_CACHE"):
        opened(root)


# In a run


def config(root, **options):
    section = {"dataset": {"type": "ImageFolder", "root": str(root)}, "batch_size": 4, "transforms": RESIZED[:3]}
    return tiny_config(
        train={**section, "workers": 0, **options},
        val={**section, "transforms": RESIZED[:1], "batch_size": 1},
        model={"type": "ConvNet", "in_channels": 3, "image_size": 32, "num_classes": 2},
        metrics=[],
    )


def loaded(root, epoch=1, start=0, **options):
    values = config(root, **options)
    values["val"] = None
    runner = build_runner(values)
    return list(runner.train_loader.epoch(epoch, start))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_same_for_any_workers_and_from_any_place(root, workers):
    expected = loaded(root)
    for cache in (None, "ram", "disk", "disk"):
        assert_same(loaded(root, cache=cache, workers=workers), expected)
    assert_same(loaded(root, start=1, cache="disk", workers=workers), expected[1:])
    values = config(root, cache="ram", workers=workers)
    values["val"] = None
    loader = build_runner(values).train_loader
    assert_same(list(loader.epoch(0)), loaded(root, epoch=0))
    assert_same(list(loader.epoch(1)), expected)


def test_the_draft_can_be_forbidden(root):
    photo(400, 400).save(root / "a" / "0.jpg")
    one, other = loaded(root), loaded(root, draft=False)
    images = [torch.cat([batch["image"] for batch in found]).float() for found in (one, other)]
    assert not torch.equal(*images)
    assert (images[0] - images[1]).abs().mean() < 1


def unread_once(unread):
    """Return what reads the first sample alone, which is looked at."""
    return lambda self, index, epoch: unread(self, index, epoch) if not index else pytest.fail("it is decoded again")


def test_it_is_told_and_used_to_hold_the_data_in_memory(root, caplog, monkeypatch):
    options, cache = {"transforms": [{"type": "Resize", "size": [32, 32]}], "cache": "disk"}, cache_root()
    expected = loaded(root, **options)
    monkeypatch.setattr(ImageFolder, "unread", unread_once(ImageFolder.unread))
    with caplog.at_level(logging.INFO, logger="visreg"):
        assert_same(loaded(root, **options), expected)
        touched(root)
        monkeypatch.undo()
        monkeypatch.setenv("VISREG_CACHE", str(cache))
        loaded(root, **options)
    assert "train: decoded samples are kept in " in caplog.text
    assert "MB in its folder), where 10 of 10 are" in caplog.text
    assert "begun anew, since the data changed" in caplog.text


def test_what_is_damaged_is_not_called_changed(root, caplog):
    with caplog.at_level(logging.INFO, logger="visreg"):
        loaded(root, cache="disk")
        path = next(cache_root().glob("*.samples"))
        for content in (path.read_bytes()[: HEADER + 9], b"visreg" + bytes(300)):
            path.write_bytes(content)
            loaded(root, cache="disk")
    assert caplog.text.count("begun anew, since it was damaged") == 2
    assert "changed" not in caplog.text


def test_the_reason_not_to_hold_what_is_kept_in_memory_is_that(root, caplog):
    for name in ("0", "2", "4", "6", "8"):
        photo(400, 400).save(root / "a" / f"{name}.jpg")
    with caplog.at_level(logging.INFO, logger="visreg"):
        loaded(root, transforms=CROP, cache="ram")
        assert "one by one: cache='ram' keeps them as they are decoded" in caplog.text
        assert "draft=False" not in caplog.text
        loaded(root, transforms=CROP)
        assert "unless draft=False" in caplog.text


def test_what_cannot_be_kept_is_a_mistake(root):
    with pytest.raises(ConfigError, match=r"train\.cache: digits .* does not say which files .*; remove it"):
        check_config(config_from(tiny_config(train={"cache": "ram"})))
    dataset = {"type": "Subset", "dataset": tiny_config()["train"]["dataset"], "count": 9}
    with pytest.raises(DataError, match=r"train\.cache: .* does not say which files .*; remove it"):
        build_runner(tiny_config(train={"cache": "ram", "dataset": dataset}, val=None, metrics=[]))
    with pytest.raises(ConfigError, match=r"train\.cache: of no use, since train\.in_memory=True"):
        build_runner(config(root, cache="ram", in_memory=True))
    with pytest.raises(ConfigError, match=r"train\.cache"):
        build_runner(config(root, cache="dsk"))
    with pytest.raises(ConfigError, match=r"train\.workers"):
        build_runner(config(root, workers=-1))
