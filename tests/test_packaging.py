"""The wheel holds jaxai alone, whole, and works installed and editable."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAPPED = {"jaxai.models": "models", "jaxai.weights_convert": "weights_convert"}

# -P keeps the working directory from shadowing what is installed.
USE = """
import site, sys
site.addsitedir(sys.argv[1])
import jaxai
from jaxai import models, plots, weights_convert
from jaxai.models.zoo import ZOO
from jaxai.models.labels import imagenet
from jaxai.cli import main
assert len(imagenet()) == 1000 and "vgg16" in ZOO
assert main(["methods"]) == 0
for module in (jaxai, models, plots, weights_convert):
    print(module.__file__)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the project, as building leaves files behind."""
    copy = tmp_path_factory.mktemp("source") / "jaxai"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("jaxai", "models", "weights_convert"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    return copy


def backend(source, hook, out):
    """Run a hook of the build backend and return the wheel that it makes."""
    out.mkdir()
    code = f"from setuptools import build_meta; print(build_meta.{hook}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return backend(source, "build_wheel", tmp_path_factory.mktemp("wheel") / "out")


def use(folder, tmp_path):
    """Use the package from a folder in a fresh process; return the files it was loaded from."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", USE, str(folder)],
        cwd=tmp_path,
        env={**variables, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [Path(line).resolve() for line in done.stdout.splitlines()[-4:]]


def test_packages_lists_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("jaxai/**/__init__.py")}
    for name, folder in MAPPED.items():
        inside = (path.parent.relative_to(ROOT / folder) for path in (ROOT / folder).glob("**/__init__.py"))
        found |= {".".join([name, *path.parts]) for path in inside}
    assert found == set(listed)


def test_the_wheel_holds_jaxai_alone_and_whole(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    inside = {name for name in names if not name.startswith("jaxai_explain-")}
    assert all(name.startswith("jaxai/") for name in inside)
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "jaxai").rglob("*.py")}
    for folder in MAPPED.values():
        expected |= {f"jaxai/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
    assert inside == expected | {
        "jaxai/py.typed",
        "jaxai/cli/facts.json",
        "jaxai/models/imagenet_labels.txt",
        "jaxai/dataset/page.css",
        "jaxai/dataset/page.js",
        "jaxai/report/concepts.css",
        "jaxai/report/page.css",
        "jaxai/report/page.js",
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_works_installed(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert all(path.is_relative_to(site.resolve()) for path in use(site, tmp_path))


@pytest.mark.slow
def test_an_editable_install_uses_the_sources(source, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(backend(source, "build_editable", tmp_path / "out")).extractall(site)
    package, models, plots, converters = use(site, tmp_path)
    assert package == (source / "jaxai/__init__.py").resolve()
    assert models == (source / "models/__init__.py").resolve()
    assert converters == (source / "weights_convert/__init__.py").resolve()
    assert plots.is_relative_to(source.resolve())


def test_the_oldest_versions_are_those_that_are_promised():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    promised = {}
    for wanted in [*project["dependencies"], *project["optional-dependencies"]["convert"]]:
        name, _, bound = wanted.partition(">=")
        promised[name] = bound
    lines = (ROOT / ".ci" / "oldest.txt").read_text("utf-8").splitlines()
    tried = dict(line.split("==") for line in lines if not line.startswith("#"))

    def release(version):
        return tuple(int(part) for part in f"{version}.0.0".split(".")[:3])

    assert {name: release(bound) for name, bound in promised.items()} == {
        name: release(version) for name, version in tried.items()
    }


@pytest.mark.slow
def test_a_checkout_without_symbolic_links_works(source, tmp_path):
    # As git makes it on Windows: each link is a text file that holds its target.
    copy = tmp_path / "checkout"
    shutil.copytree(source, copy, symlinks=True)
    for name in ("models", "weights_convert"):
        link = copy / "jaxai" / name
        target = os.readlink(link)
        link.unlink()
        link.write_text(target, "utf-8")
    site = tmp_path / "site"
    zipfile.ZipFile(backend(copy, "build_editable", tmp_path / "out")).extractall(site)
    _, models, _, converters = use(site, tmp_path)
    assert models == (copy / "models/__init__.py").resolve()
    assert converters == (copy / "weights_convert/__init__.py").resolve()
