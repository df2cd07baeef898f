"""Attention maps of a real vision transformer: rollout beside the methods that know what is explained.

    python -m benchmarks.attention_gallery FOLDER

The network is `vit_s14_focus` (`jaxai fetch vit_s14_focus`), which draws what stands out; explained is the
mean of its map in the central square of 32 pixels. Photographs are scikit-image's. Nothing is chosen by hand.
Writes attention.jpg.
"""

import argparse
import io
from pathlib import Path

import jaxai

jaxai.configure_cpu()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from skimage import data  # noqa: E402

PHOTOS = ("rocket", "coffee", "chelsea")
WIDTH, HALF = 1400, 16


def maps(net, images, target):
    """Return the maps by title, [photos, height, width]."""
    attention = jaxai.attention
    found = {
        "rollout": attention.rollout(net.model, images, target, queries="mean"),
        "gradient attention": attention.gradient_attention(net.model, images, target, queries="mean"),
        "bidirectional, heads": attention.bidirectional(net.model, images, target, start=3, queries="mean"),
        "bidirectional, tokens": attention.bidirectional(
            net.model, images, target, start=3, queries="mean", approximation="token"
        ),
    }
    relevance = jaxai.lrp(net.model, images, target, composite="attn_lrp").sum(-1)
    patches = jax.image.resize(relevance, (len(images), 16, 16), "linear", antialias=True)
    found["AttnLRP, by patches"] = jaxai.maps.upsample(np.maximum(patches, 0), images.shape[1:3])
    return {title: np.asarray(values) for title, values in found.items()}


def main():
    """Write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    net = jaxai.models.load("vit_s14_focus")
    photos = net.crop([getattr(data, name)() for name in PHOTOS])
    middle = np.zeros(photos.shape[1:3], bool)
    centre = photos.shape[1] // 2
    middle[centre - HALF : centre + HALF, centre - HALF : centre + HALF] = True
    found = maps(net, net.normalize(photos), jaxai.targets.region(None, middle))
    panels = []
    for i, photo in enumerate(photos):
        panels.append(jaxai.plots.photo_panel(photo, title=PHOTOS[i]))
        panels += [
            jaxai.plots.heatmap_panel(photo, values[i], title=title) for title, values in found.items()
        ]
    figure = jaxai.plots.compose(panels, columns=1 + len(found))
    picture = Image.open(io.BytesIO(jaxai.plots.png(figure))).convert("RGB")
    size = (WIDTH, round(picture.height * WIDTH / picture.width))
    picture.resize(size, Image.Resampling.LANCZOS).save(folder / "attention.jpg", quality=80, optimize=True)


if __name__ == "__main__":
    main()
