"""Sparse autoencoders: an overcomplete dictionary of which few entries compose each activation."""

import os
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float

from .. import _files
from .._frame import checks
from . import _sae_training
from ._sae_kinds import DICTIONARIES, KINDS


@register_dataclass
@dataclass(frozen=True)
class Sae:
    """A sparse autoencoder of activations [..., features]; a pytree.

    Attributes:
        directions: The dictionary, float32 [codes, features], of length one.
        encoder: [features, codes]; unused by matching pursuit.
        threshold: Offset added before the ReLU, [codes].
        gate: Threshold that a code must exceed, [codes]; zero for `"top_k"` and `"matching_pursuit"`.
        mean: Mean of the activations, [features].
        scale: Root of their mean squared distance from the mean, per feature.
        history: Fraction of unexplained variance at each step, on that step's batch, [steps].
        r2: Fraction of the variance of all activations that the codes explain.
        l0: Mean number of codes per activation.
        usage: Fraction of the activations that use each code, [codes]; 0 for dead codes.
        k: Number of codes per activation, at most or on average.
        kind: Kind of encoding, as in `sae`.
    """

    directions: Float[Array, "codes features"]
    encoder: Float[Array, "features codes"]
    threshold: Float[Array, " codes"]
    gate: Float[Array, " codes"]
    mean: Float[Array, " features"]
    scale: Float[Array, ""]
    history: Float[Array, " steps"]
    r2: Float[Array, ""]
    l0: Float[Array, ""]
    usage: Float[Array, " codes"]
    k: int = field(metadata={"static": True})
    kind: str = field(default="top_k", metadata={"static": True})

    def encode(self, acts: Float[Array, "*batch features"]) -> Float[Array, "*batch codes"]:
        """Return the codes of activations, non-negative; with `"top_k"` at most k of them are positive."""
        flat = (jnp.asarray(acts, jnp.float32).reshape(-1, self.mean.shape[0]) - self.mean) / self.scale
        codes = _sae_training.encoded(
            flat, self.directions, self.encoder, self.threshold, self.gate, k=self.k, kind=self.kind
        )
        return codes.reshape(*jnp.shape(acts)[:-1], -1)

    def decode(self, codes: Float[Array, "*batch codes"]) -> Float[Array, "*batch features"]:
        """Return the activations that codes represent."""
        return codes @ self.directions * self.scale + self.mean

    def save(self, path: str | os.PathLike) -> None:
        """Write the autoencoder to a file, for `load_sae`."""
        found: dict[str, Any] = {one.name: np.asarray(getattr(self, one.name)) for one in fields(self)}
        with _files.file(Path(path)) as new, open(new, "wb") as out:
            np.savez(out, **found)

    @property
    def dead(self) -> int:
        """Number of codes that no activation uses."""
        return int((np.asarray(self.usage) == 0).sum())

    def __repr__(self) -> str:
        codes, features = self.directions.shape
        of = f"{self.kind}, {codes} codes of {features} features"
        return f"Sae({of}, k={self.k}, l0={float(self.l0):.1f}, r2={float(self.r2):.3f}, {self.dead} dead)"


def load_sae(path: str | os.PathLike) -> Sae:
    """Return an autoencoder that `Sae.save` wrote.

    Args:
        path: The file.

    Returns:
        The same `Sae`.

    Raises:
        ValueError: If the file is not an autoencoder.
        OSError: If it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            found: dict[str, Any] = {one.name: stored[one.name] for one in fields(Sae)}
    except (KeyError, ValueError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{_files.shown(path, 200)} is no autoencoder that Sae.save wrote") from error
    k, kind = int(found.pop("k")), str(found.pop("kind"))
    return Sae(**{name: jnp.asarray(value) for name, value in found.items()}, k=k, kind=kind)


def sae(
    acts: Float[Array, "*batch features"],
    *,
    num_codes: int,
    k: int,
    key: jax.Array,
    kind: str = "top_k",
    dictionary: str = "free",
    candidates: Float[Array, "candidates features"] | int | None = None,
    delta: float = 1.0,
    steps: int = 2000,
    examples: int = 512,
    learning_rate: float = 5e-4,
    checkpoint: str | os.PathLike | None = None,
) -> Sae:
    r"""Train a sparse autoencoder on activations.

    $z = \mathrm{TopK}(\mathrm{ReLU}(W (x - b) + c))$ and $\hat x = z D + b$, or another sparsity constraint.
    Activations are centred and scaled by one factor. The dictionary is initialised with activations and the
    encoder with its transpose, of the size that explains a first batch best. Entries keep length one, and
    codes unused for 80 steps learn to explain the residual of the others (weight 1/4) and grow until they
    are used, so that few stay dead; matching pursuit, which has no encoder, replaces them with the
    worst-explained activations.

    Args:
        acts: Activations with any axes before the features: positions of images, tokens. A NumPy memory map
            is read batch by batch and never loaded as a whole (see `save_activations`).
        num_codes: Number of codes, usually more than features.
        k: At most this many codes per activation; on average for `"batch_top_k"` and `"jump_relu"`.
        key: Typed PRNG key of the start and of the batches; step t depends on it and t.
        kind: `"top_k"`: the k largest codes of each activation; `"batch_top_k"`: the largest of the whole
            batch, k per activation, and after training those above the mean threshold; `"jump_relu"`: those
            above a learned gate per code, all of which are shifted at each step so that the mean number of
            codes is held at k; `"matching_pursuit"`: k greedy steps on the residual, without an encoder.
        dictionary: `"free"`; or `"archetypal"`: each entry is a convex combination of candidates plus a short
            step, scaled to length one, so that different keys find nearly the same entries.
        candidates: For `"archetypal"`, points like activations [candidates, features], at least as many as
            codes; or the number of cluster centres to use. None is twice the number of codes. Neither the
            centres nor the points at which the entries start, evenly spaced in this order, depend on `key`.
        delta: For `"archetypal"`, the longest step, in units of the activations' scale.
        steps: Number of steps.
        examples: Activations per step.
        learning_rate: Learning rate of Adam, with cosine decay to zero.
        checkpoint: A file that stores the state of the training. If it exists, the training resumes from
            there, with the same result as without an interruption.

    Returns:
        An `Sae`; `encode` and `decode` take activations of any axes.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If shapes do not fit, numbers are out of range, activations are not finite or all equal,
            or the checkpoint belongs to another training.

    References:
        Gao et al.: Scaling and evaluating sparse autoencoders. ICLR 2025, arXiv 2406.04093, equations 3 to 5
        (TopK) and appendix A.2 (dead codes).
        Bussmann et al.: BatchTopK Sparse Autoencoders. 2024, arXiv 2412.06410, equations 3 to 5.
        Rajamanoharan et al.: Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU Sparse
        Autoencoders. 2024, arXiv 2407.14435, equations 11 and 12 (pseudo-derivatives).
        Fel et al.: Archetypal SAE: Adaptive and Stable Dictionary Learning for Concept Extraction in Large
        Vision Models. ICML 2025, arXiv 2502.12892, equation 4.
        Costa et al.: From Flat to Hierarchical: Extracting Sparse Representations with Matching Pursuit.
        NeurIPS 2025, arXiv 2506.03093 (matching pursuit).

    Example:
        >>> import jax
        >>> import jaxai
        >>> acts = jax.random.normal(jax.random.key(0), (256, 4))
        >>> found = jaxai.concepts.sae(acts, num_codes=8, k=2, key=jax.random.key(1), steps=100, examples=64)
        >>> found.encode(acts).shape, int((found.encode(acts) > 0).sum(-1).max())
        ((256, 8), 2)
    """
    streamed = isinstance(acts, np.memmap)
    given = acts if streamed else jnp.asarray(acts, jnp.float32)
    if given.ndim < 2 or 0 in given.shape:
        raise ValueError(f"`acts` must be [..., features] with no empty axis; got shape {given.shape}")
    checks.choice(kind, "kind", KINDS)
    checks.choice(dictionary, "dictionary", DICTIONARIES)
    num_codes, k = checks.positive(num_codes, "num_codes"), checks.positive(k, "k")
    if k > num_codes:
        raise ValueError(f"`k` must be at most `num_codes`, {num_codes}; got {k}")
    flat = given.reshape(-1, given.shape[-1])
    mean, scale = _sae_training.moments(flat)
    if not 0 < scale < np.inf:
        raise ValueError("`acts` must be finite and not all alike")
    data = _sae_training.Data(flat, mean, scale)
    points = _candidates(candidates, data, num_codes) if dictionary == "archetypal" else None
    plan = _sae_training.Plan(
        num_codes=num_codes,
        k=k,
        kind=kind,
        archetypal=points is not None,
        steps=checks.positive(steps, "steps"),
        examples=min(checks.positive(examples, "examples"), len(flat)),
    )
    numbers = {
        "learning_rate": checks.number(learning_rate, "learning_rate", "(0, inf)"),
        "delta": checks.number(delta, "delta", "[0, inf)"),
    }
    path = None if checkpoint is None else Path(checkpoint)
    found, history = _sae_training.train(plan, data, checks.key(key), points, numbers, path)
    r2, l0, usage = _sae_training.measured(found, data, k=k, kind=kind)
    return Sae(**found, mean=mean, scale=scale, history=history, r2=r2, l0=l0, usage=usage, k=k, kind=kind)


def _candidates(given, data, num_codes):
    """Return the points that archetypal entries combine, in the data's units."""
    if given is None or isinstance(given, (int, np.integer)):
        count = min(2 * num_codes, len(data.rows)) if given is None else checks.positive(given, "candidates")
        if num_codes <= count <= len(data.rows):
            return _sae_training.centres(data, count)
        wanted = f"{num_codes} to {len(data.rows)}, the numbers of codes and of activations"
        raise ValueError(f"`candidates` must be {wanted}; got {count}")
    points = jnp.asarray(given, jnp.float32)
    if points.ndim != 2 or points.shape[1] != data.rows.shape[1] or len(points) < num_codes:
        raise ValueError(
            f"`candidates` must be [at least {num_codes}, {data.rows.shape[1]}], points like activations; got"
            f" {points.shape}"
        )
    return (points - data.mean) / data.scale
