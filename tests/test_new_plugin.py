"""What `visreg new-plugin` writes."""

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

import visreg
from visreg.errors import RegistryError, ResourceError
from visreg.new_plugin import write_plugin

ROOT = Path(visreg.__file__).parent.parent


def without_installing(folder):
    """Return the environment in which the package in ``folder`` looks installed."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    module = project["name"].replace("-", "_")
    info = folder / "src" / f"{module}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    paths = [str(folder / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run(*command, **options):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_package_is_written_whole_and_its_tests_pass(tmp_path):
    folder = write_plugin("visreg-probe", tmp_path)
    assert folder == tmp_path / "visreg-probe"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        ".gitignore", "README.md", "examples/digits.py", "pyproject.toml", "src/visreg_probe/__init__.py",
        "src/visreg_probe/hook.py", "src/visreg_probe/model.py", "src/visreg_probe/py.typed",
        "tests/test_visreg_probe.py",
    }  # fmt: skip
    assert not any("$" in (folder / file).read_text() for file in files)
    environment = without_installing(folder)
    assert "6 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder, env=environment, cwd=tmp_path)


def test_its_example_trains_and_its_names_are_listed(tmp_path):
    folder = write_plugin("visreg-probe", tmp_path)
    environment = without_installing(folder)
    flags = ["--set", "run.epochs=None", "run.steps=1", "run.device=cpu"]
    said = run("-m", "visreg", "train", folder / "examples" / "digits.py", *flags, env=environment, cwd=tmp_path)
    assert "step 1/1" in said
    assert "In a config:" in run("-m", "visreg", "list", "models", "ProbeNet", env=environment, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("editable", [True, False])
def test_pip_installs_it(tmp_path, editable):
    pytest.importorskip("hatchling")
    folder = write_plugin("visreg-probe", tmp_path)
    run("-m", "venv", "--without-pip", tmp_path / "env")
    python = tmp_path / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    scheme = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    # The environment sees what this one has, so that nothing is downloaded.
    lines = [f"import site; site.addsitedir({path!r})" for path in (sysconfig.get_path("purelib"), str(ROOT))]
    (packages / "outer.pth").write_text("\n".join(lines))
    flags = ["--no-build-isolation", "--no-deps", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run(
        [python, "-m", "pip", "install", *flags, *["-e"] * editable, folder], capture_output=True, text=True
    )
    assert installed.returncode == 0, installed.stderr
    tested = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder], capture_output=True, text=True, cwd=tmp_path
    )
    assert "6 passed" in tested.stdout, tested.stdout


def test_nothing_is_overwritten(tmp_path):
    folder = write_plugin("visreg-probe", tmp_path)
    (folder / "README.md").write_text("mine")
    with pytest.raises(RegistryError, match="exists already, and nothing in it was touched") as caught:
        write_plugin("visreg-probe", tmp_path)
    assert caught.value.exit_code == 2
    assert (folder / "README.md").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["visreg-probe"]


@pytest.mark.parametrize("name", ["", "-x", "x-", "a b", "../up", "a/b", "ünder", "a:b", ".hidden"])
def test_name_must_be_a_package_s(tmp_path, name):
    with pytest.raises(RegistryError, match="not a package's name"):
        write_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["3d-net", "class", "Lambda"])
def test_name_must_give_a_module_that_can_be_imported(tmp_path, name):
    with pytest.raises(RegistryError, match="which Python cannot import"):
        write_plugin(name, tmp_path)


@pytest.mark.parametrize("name", ["torch", "json", "Torch-Vision"])
def test_name_of_an_installed_module_is_refused(tmp_path, name):
    if name == "Torch-Vision":
        name = "visreg"
    with pytest.raises(RegistryError, match="is installed already"):
        write_plugin(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "module", "model"),
    [("visreg-my.Own_net", "visreg_my_own_net", "MyOwnNet"), ("visreg-conv", "visreg_conv", "MyConvNet"),
     ("visreg-3d", "visreg_3d", "My3dNet"), ("a1", "a1", "A1Net")],
)  # fmt: skip
def test_module_and_classes_are_named_after_the_package(tmp_path, name, module, model):
    folder = write_plugin(name, tmp_path)
    assert f"class {model}(" in (folder / "src" / module / "model.py").read_text()
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == name
    assert project["entry-points"]["visreg.models"] == {model: f"{module}.model:{model}"}


def test_folder_is_made_and_one_that_cannot_be_is_an_error(tmp_path):
    assert write_plugin("visreg-probe", tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_plugin("visreg-probe", tmp_path / "file")
