"""Draw the picture of each method's page: `python docs/pictures.py [METHOD...]`; all take 15 minutes.

The maps of all pictures are put together in one, `images/all_methods.webp`.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import jaxai
from jaxai.cli.sheets import contact_sheet
from jaxai.report import _figures as figures
from jaxai.report._methods import METHODS

FOLDER = Path(__file__).parent / "images/methods"
WIDTH = 720
SIDE = 150
# The defaults of these take a quarter of an hour; the pages say so.
FEWER = {"is_cam": {"num_samples": 3}, "ss_cam": {"num_samples": 3}}
CLASS = 285


def draw(name: str) -> None:
    """Write what a method says of the cat."""
    figure = _exact() if name == "exact_shapley" else _explained(name)
    with Image.open(io.BytesIO(jaxai.plots.png(figure))) as picture:
        small = picture.convert("RGB")
    small.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    small.save(FOLDER / f"{name}.webp", quality=78, method=6)


def _explained(name: str):
    methods = {name: FEWER.get(name, {})}
    e = jaxai.explain("efficientnet_lite0", "cat", methods=methods, targets=CLASS, progress=False)
    subject, (part,) = e.results[0]
    return figures.of_method(subject, part)


def _exact():
    """Return the figure of exact Shapley values, which are for at most 12 superpixels: 3 x 4 cells."""
    from skimage import data

    net = jaxai.models.load("efficientnet_lite0")
    photos = net.crop(data.chelsea())
    cells = jaxai.segment(photos, method="grid", rows=3, columns=4)
    found = jaxai.exact_shapley(net.model, net.normalize(photos), CLASS, segments=cells)
    label = METHODS["exact_shapley"].unit
    strongest = "strongest regions for the class"
    panels = [
        jaxai.plots.photo_panel(photos[0], title="photo"),
        jaxai.plots.segments_panel(photos[0], cells[0], found.values[0], title=strongest),
        jaxai.plots.heatmap_panel(
            photos[0], found.heatmap[0], title="values of all regions", signed=True, label=label
        ),
    ]
    return jaxai.plots.compose(panels, title=f"exact Shapley: {net.labels[CLASS]} ({CLASS})")


def together() -> None:
    """Write the maps of all methods' pictures side by side, family by family."""
    order = ("cam", "gradients", "rules", "perturbation")
    names = sorted(METHODS, key=lambda name: order.index(METHODS[name].family))
    tiles, titles = [], []
    for name in names:
        with Image.open(FOLDER / f"{name}.webp") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        tile = Image.fromarray(_map_of(pixels)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        tiles.append(np.asarray(tile) / 255)
        titles.append(METHODS[name].title)
    contact_sheet(tiles, titles, columns=8).save(FOLDER.parent / "all_methods.webp", quality=82, method=6)


def _map_of(pixels: np.ndarray) -> np.ndarray:
    """Return the last panel of a figure: what lies between white, and is as wide as a panel."""
    # Titles and captions leave more white in a row than panels do.
    rows = max(_runs((pixels < 250).any(-1).mean(1) > 0.25), key=lambda run: run[1] - run[0])
    body = pixels[slice(*rows)]
    columns = [run for run in _runs((body < 252).any(-1).mean(0) > 0.8) if run[1] - run[0] > WIDTH // 6]
    return body[:, slice(*columns[-1])]


def _runs(dark: np.ndarray) -> list[tuple[int, int]]:
    """Return where values are true, as (start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], dark.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


if __name__ == "__main__":
    for wanted in sys.argv[1:] or METHODS:
        if len(sys.argv) > 1 or not (FOLDER / f"{wanted}.webp").exists():
            draw(wanted)
            print(wanted, flush=True)
    together()
