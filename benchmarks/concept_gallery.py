"""Ten concepts of EfficientNet-Lite0 and of a vision transformer, drawn by a fixed rule.

    python -m benchmarks.concept_gallery FOLDER --photos PHOTOS [--networks NAME...]

PHOTOS is a folder of photographs, to which four of scikit-image's are added. The rule: the ten concepts that
`strongest_concepts` puts first; nothing is chosen by hand. Writes
concepts_NAME.jpg, one sheet below the other, and prints what was found.
"""

import argparse
import io
import time
from pathlib import Path

import jaxai

jaxai.configure_cpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from skimage import data  # noqa: E402

OWN = ("chelsea", "coffee", "rocket", "astronaut")
# The layer, how its concepts are found, the steps of the optimised images and their side.
NETWORKS = {
    "efficientnet_lite0": ("conv_head", "craft", 64, 160),
    "vit_s14_focus": ("blocks.8", "sae", 48, 112),
}
SHOWN, WIDTH = 10, 1000


def found(net, photos, layer, method):
    """Return the concepts of a layer."""
    if method == "craft":
        x = net.normalize(photos)
        return jaxai.concepts.craft(net.model, x, layer=layer, num_concepts=20, key=jax.random.key(0))
    acts = jaxai.features.layer_activations(net.model, photos, layer=layer, normalize=net.normalize)
    # The first token is the class's.
    acts = acts[:, 1:] if acts.ndim == 3 else acts
    options = {"num_codes": 512, "k": 16, "steps": 1500, "learning_rate": 1e-3}
    return jaxai.concepts.sae(acts, key=jax.random.key(0), **options)


def main():
    """Write the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    options = parser.parse_args()
    files = sorted(path for path in options.photos.iterdir() if path.suffix in (".jpg", ".jpeg", ".png"))
    for name in options.networks:
        layer, method, steps, size = NETWORKS[name]
        net = jaxai.models.load(name)
        photos = jnp.concatenate([net.crop([*map(str, files)]), *(net.crop(getattr(data, n)()) for n in OWN)])
        begin = time.perf_counter()
        made = found(net, photos, layer, method)
        searched = time.perf_counter() - begin
        sheets = jaxai.concepts.concept_sheets(
            net.model,
            photos,
            made,
            layer=layer,
            which=SHOWN,
            key=jax.random.key(0),
            normalize=net.normalize,
            steps=steps,
            size=size,
        )
        figures = [
            jaxai.plots.concept_sheet(one, labels=net.labels, title=f"{name}, {layer}: concept {one.concept}")
            for one in sheets
        ]
        pictures = [Image.open(io.BytesIO(jaxai.plots.png(figure))) for figure in figures]
        pictures = [
            p.resize((WIDTH, round(p.height * WIDTH / p.width)), Image.Resampling.LANCZOS) for p in pictures
        ]
        page = Image.new("RGB", (WIDTH, sum(p.height for p in pictures)), "white")
        heights = np.cumsum([0, *(p.height for p in pictures)])
        for picture, top in zip(pictures, heights, strict=False):
            page.paste(picture, (0, int(top)))
        page.save(options.folder / f"concepts_{name}.jpg", quality=68, optimize=True)
        about = f"error {float(made.error):.3f}" if method == "craft" else repr(made)
        print(f"{name}: {len(photos)} photos, searched in {searched:.0f} s, {about}", flush=True)


if __name__ == "__main__":
    main()
