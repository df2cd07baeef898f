"""What both sides read: weights, photographs, classes, superpixels and masks, written once to files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np


def ask(network: str, folder: str, *, batch: int, samples: int) -> dict[str, str]:
    """Have `write` done in a process of its own, so that this one never starts JAX."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.inputs", network, folder, str(batch), str(samples)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    return json.loads(done.stdout.splitlines()[-1])


def write(network: str, folder: Path, *, batch: int, samples: int) -> dict[str, str]:
    """Write a network's inputs into a folder and return their paths, and where the weights come from."""
    import jax.numpy as jnp
    from skimage import data, transform

    import jaxai

    from . import networks

    model, where = networks.load(network)
    paths = {name: folder / f"{network}-{name}.npy" for name in ("images", "classes", "segments", "masks")}
    weights = folder / f"{network}.safetensors"
    networks.write_weights(model, weights)
    crops = []
    for photo in (data.chelsea(), data.coffee(), data.astronaut(), data.rocket()):
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        square = photo[top : top + side, left : left + side]
        crops.append(transform.resize(square, (224, 224), anti_aliasing=True).astype(np.float32))
    photos = np.stack(crops)
    # Mirrored and shifted copies fill the batch, so that no two images are alike.
    variants = [np.roll(photos[i % 4], 9 * i, axis=1)[:, :: -1 if i % 8 >= 4 else 1] for i in range(batch)]
    images = np.asarray(networks.normalize(network)(jnp.asarray(np.stack(variants))))
    np.save(paths["images"], images)
    scores = np.concatenate([np.asarray(model(jnp.asarray(images[i : i + 1]))) for i in range(batch)])
    np.save(paths["classes"], scores.argmax(1))
    segments = np.asarray(jaxai.segment(jnp.asarray(photos[:1]), method="quickshift"))
    np.save(paths["segments"], segments)
    masks = np.random.default_rng(0).integers(0, 2, (samples, segments.max() + 1)).astype(np.float32)
    masks[0] = 1
    np.save(paths["masks"], masks)
    return {name: str(path) for name, path in paths.items()} | {"weights": str(weights), "where": where}


if __name__ == "__main__":
    print(json.dumps(write(sys.argv[1], Path(sys.argv[2]), batch=int(sys.argv[3]), samples=int(sys.argv[4]))))
