"""Read photos that are almost right: each must give pixels in [0, 1] or one `ValueError` in one line.

    python tests/fuzz/fuzz_photos.py 5000 [--seed 0] [--keep FOLDER]

A child process reads them, so that a crash or a hang is found too; it must print nothing, stay within its
memory and time, and start no program. Where Pillow alone reads the same file, the pixels must be the same.
"""

import argparse
import io
import json
import os
import re
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from photo_mutations import checksums_hold, make
from PIL import Image, ImageOps

MEGAPIXELS = 4
SECONDS = 10  # of the processor, for one photo
MEMORY = 1500  # MiB more than at the start
SILENCE = 120  # seconds without news of the child
PROGRAMS = ("gs", "gswin64c", "djpeg", "dvips", "latex", "convert", "xdg-open", "gm")
WORDS = (
    r"cannot be read as an image: |is not an image that can be read \(|must |has \d+ NaN or infinite values"
)


def expected(data: bytes) -> list[np.ndarray]:
    """Return what Pillow makes of a file; nothing where the meaning is decided in other ways here."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            image = Image.open(io.BytesIO(data))
            if image.size[0] * image.size[1] > MEGAPIXELS * 10**6:
                return []
            # Which page is the first, and grey of more than eight bits.
            if image.format == "TIFF" and (254 in image.tag_v2 or image.mode in ("I", "I;16", "I;16B", "F")):
                return []
            images = [ImageOps.exif_transpose(image)]
            # Pillow obeys some orientations that are damaged, too.
            images += [image] if caught else []
            return [found for found in map(_pixels, images) if found is not None]
    except Exception:
        return []


def _pixels(image: Image.Image) -> np.ndarray | None:
    if image.mode in ("I", "I;16"):
        values = np.asarray(image, np.float32) / 65535
        return None if "transparency" in image.info else np.stack([values] * 3, -1)
    if image.mode == "L" and "transparency" in image.info:
        return None
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255,) * 4), layers)
    return np.asarray(image.convert("RGB"), np.float32) / 255


def read(photo: Path | Image.Image) -> np.ndarray | str | None:
    """Return the pixels of a photo, None if it is refused as it should be, or what is wrong."""
    from jaxai.models import PhotoNote, fit

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            pixels = np.asarray(fit(photo, longest=10**6, max_pixels=MEGAPIXELS * 10**6))
        except ValueError as error:
            text = str(error)
            if type(error) is not ValueError or len(text) > 500 or not text.isprintable():
                return f"not one line: {type(error).__name__}: {text!r}"
            return None if re.search(WORDS, text) else f"unclear: {text}"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
    if other := [str(warning.message) for warning in caught if warning.category is not PhotoNote]:
        return f"warnings: {other}"
    if pixels.dtype != np.float32 or pixels.ndim != 4 or pixels.shape[::3] != (1, 3):
        return f"{pixels.dtype} {pixels.shape}"
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        return f"values from {pixels.min()} to {pixels.max()}"
    return pixels[0]


def opened(path: Path) -> Image.Image | None:
    """Return what a user gets who opens the file with Pillow, which has a say of its own."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(path)
    except Exception:
        return None


def child(seed: int, start: int, stop: int, folder: Path) -> None:
    """Read photos and report each: a line of JSON when it begins, another if something is wrong."""
    report = os.fdopen(os.dup(1), "w", buffering=1)
    printed = open(folder / "printed", "w+b")
    os.dup2(printed.fileno(), 1)
    os.dup2(printed.fileno(), 2)
    Image.new("RGB", (9, 9)).save(folder / "first.png")
    read(folder / "first.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(start, stop):
        what, data = make(seed, index)
        path = folder / f"photo{index}.jpg"
        path.write_bytes(data)
        print(json.dumps({"index": index, "what": what}), file=report)
        clock = time.process_time()
        result = read(path)
        taken = time.process_time() - clock
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
        printed.seek(0)
        text = printed.read()
        image = opened(path) if index % 4 == 0 else None
        other = None if image is None else read(image)
        wrong = [
            *([f"as a Pillow image: {other}"] if isinstance(other, str) else []),
            *([result] if isinstance(result, str) else []),
            *([f"{taken:.0f} s of the processor"] if taken > SECONDS else []),
            *([f"{grown} MiB more memory"] if grown > MEMORY else []),
            *([f"printed {text[:200]!r}"] if text else []),
        ]
        before += max(0, grown - MEMORY) << 10
        outcome = "refused"
        if isinstance(result, np.ndarray):
            if not checksums_hold(data):
                wrong.append("a checksum is wrong")
            right = expected(data)
            outcome = "compared" if right else "read"
            if right and not any(x.shape == result.shape and np.abs(x - result).max() < 1e-6 for x in right):
                wrong.append(f"other pixels than Pillow's: {result.shape}, {right[0].shape}")
        printed.seek(0)
        printed.truncate()
        line = {"index": index, "what": what, "outcome": outcome}
        print(json.dumps({**line, "wrong": wrong} if wrong else line), file=report)
        path.unlink()


def run(count: int, seed: int = 0, keep: Path | None = None) -> tuple[list[dict], Counter]:
    """Read `count` photos and return what went wrong, and how many were read, compared and refused."""
    faults: list[dict] = []
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="jaxai-fuzz-") as place:
        folder = Path(place)
        for name in PROGRAMS:
            (folder / name).write_text(f"#!/bin/sh\necho $0 >> {folder}/started\nexit 1\n")
            (folder / name).chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        start = 0
        while start < count:
            command = [
                sys.executable,
                __file__,
                str(count),
                "--seed",
                str(seed),
                "--child",
                place,
                str(start),
            ]
            start = _follow(command, environment, count, faults, tally)
        if (folder / "started").exists():
            faults.append({"wrong": f"programs were started: {(folder / 'started').read_text().split()}"})
    for item in faults:
        if keep and "index" in item:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{item['index']}.jpg").write_bytes(make(seed, item["index"])[1])
    return faults, tally


def _follow(command: list[str], environment: dict, count: int, faults: list[dict], tally: Counter) -> int:
    """Run a child to its end and return where the next one begins."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    last: dict = {"index": -1}
    rest = b""
    while True:
        if not selector.select(SILENCE):
            process.kill()
            process.wait()
            faults.append({**last, "wrong": f"nothing for {SILENCE} s"})
            return last["index"] + 1
        data = os.read(process.stdout.fileno(), 1 << 16)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            last = json.loads(line)
            if "outcome" in last:
                tally[last["outcome"]] += 1
            if "wrong" in last:
                faults.append(last)
        if not data:
            break
    code = process.wait()
    if code == 0:
        return count
    if last["index"] < 0:
        raise RuntimeError(f"the reader does not start: code {code}")
    faults.append({**last, "wrong": f"the process ended with code {code}"})
    return last["index"] + 1


def main() -> int:
    """Read as many photos as are asked for; print what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that went wrong")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.seed, int(options.child[1]), options.count, Path(options.child[0]))
        return 0
    start = time.perf_counter()
    faults, tally = run(options.count, options.seed, options.keep)
    for item in faults:
        print(json.dumps(item))
    taken = time.perf_counter() - start
    print(f"{options.count} photos: {dict(tally)}; {len(faults)} faults, {taken:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
