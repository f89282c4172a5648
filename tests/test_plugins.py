"""The example package in ``plugins/``: what it offers, and what a config that needs it says without it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_new_plugin import run, without_installing

import visreg
from visreg.errors import ConfigError
from visreg.new_plugin import TEMPLATE

ROOT = Path(visreg.__file__).parent.parent
CONFIG = ROOT / "configs" / "tiny_vit_mnist.py"
PLUGIN = ROOT / "plugins" / "visreg-tinyvit"


@pytest.fixture
def environment(tmp_path):
    """The environment in which the example looks installed, whether it is or not."""
    (tmp_path / "src").mkdir()
    (tmp_path / "pyproject.toml").write_text((PLUGIN / "pyproject.toml").read_text())
    for file in (PLUGIN / "src").rglob("*"):
        if file.suffix in (".py", ".typed"):
            copy = tmp_path / file.relative_to(PLUGIN)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(file.read_text())
    return without_installing(tmp_path)


def test_its_own_tests_pass(environment, tmp_path):
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", PLUGIN, env=environment, cwd=tmp_path)
    assert " passed" in said
    assert "failed" not in said


def test_its_config_has_no_mistakes_and_trains(environment, tmp_path):
    digits = "{'type': 'Digits', 'train': %s}"
    flags = [
        "run.epochs=None", "run.steps=3", "run.device=cpu", "schedule.warmup_steps=1", "train.batch_size=32",
        f"train.dataset.datasets=[{digits % True}]", f"val.dataset.datasets=[{digits % False}]",
    ]  # fmt: skip
    assert "no mistakes found" in run("-m", "visreg", "check", CONFIG, env=environment, cwd=tmp_path)
    said = run("-m", "visreg", "train", CONFIG, "--set", *flags, env=environment, cwd=tmp_path)
    assert "step 3/3" in said


def test_without_it_its_config_says_what_to_install():
    if any(claim.source == "plugin" for claim in visreg.MODELS.claims("TinyViT")):
        pytest.skip("the plugin is installed here")
    with pytest.raises(ConfigError) as caught:
        visreg.check_config(visreg.load_config(CONFIG))
    assert caught.value.exit_code == 8
    by_path = {problem.path: problem for problem in caught.value.problems}
    assert set(by_path) == {"plugins[0]", "model.type", "hooks[0].type"}
    assert "pip install visreg-tinyvit" in by_path["plugins[0]"].message
    assert "'TinyViT' is not among the models" in by_path["model.type"].message
    assert by_path["model.type"].location.line > 0


def test_an_unlisted_and_misspelt_plugin_component_gets_its_near_name(environment, tmp_path):
    config = tmp_path / "near.py"
    config.write_text(CONFIG.read_text().replace('type="TinyViT"', 'type="TinyVit1"'))
    done = subprocess.run(
        [sys.executable, "-m", "visreg", "check", str(config)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert "'TinyVit1' is not among the models; did you mean 'TinyViT'" in done.stderr


def test_the_example_is_made_like_what_new_plugin_writes():
    ours = tomllib.loads((PLUGIN / "pyproject.toml").read_text())
    template = tomllib.loads((TEMPLATE / "pyproject.toml.tmpl").read_text().replace("${stem}", "Stem"))
    assert ours["build-system"] == template["build-system"]
    assert ours["tool"]["pytest"] == template["tool"]["pytest"]
    for key in ("dependencies", "optional-dependencies", "requires-python"):
        assert ours["project"][key] == template["project"][key]
    assert ours["project"]["entry-points"].keys() >= template["project"]["entry-points"].keys()
