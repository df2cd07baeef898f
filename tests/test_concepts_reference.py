"""Concepts beside Captum's TCAV and overcomplete's autoencoders, with the same weights.

Needs torch, captum and overcomplete; each test is left out where its library is missing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxai
from jaxai.concepts import Sae, _sae_training, tcav
from jaxai.concepts import _sae_kinds as kinds

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

KEY = jax.random.key(0)
CLASSES, SIDE, CHANNELS = 4, 16, 6
RNG = np.random.default_rng(0)


def _layers():
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(3, 3, 3, CHANNELS)).astype(np.float32) / 3
    hidden = rng.normal(size=(CHANNELS, 8)).astype(np.float32)
    return kernel, hidden, rng.normal(size=(8, CLASSES)).astype(np.float32)


def _features(kernel, x):
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=dimensions)
    return jax.nn.relu(x)


def _head(hidden, last, a):
    return jnp.tanh(a.mean((1, 2)) @ hidden) @ last


@pytest.fixture(scope="module")
def both():
    """The same small network in both worlds, as its two parts."""
    kernel, hidden, last = _layers()
    stages = {"features": Partial(_features, jnp.asarray(kernel))}
    stages["logits"] = Partial(_head, jnp.asarray(hidden), jnp.asarray(last))
    nn = torch.nn
    body = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1, bias=False), nn.ReLU())
    top = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(CHANNELS, 8, bias=False),
        nn.Tanh(),
        nn.Linear(8, CLASSES, bias=False),
    )
    with torch.no_grad():
        body[0].weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
        top[2].weight.copy_(torch.from_numpy(hidden.T.copy()))
        top[4].weight.copy_(torch.from_numpy(last.T.copy()))
    return jaxai.chain(stages), body.eval(), top.eval()


def _first(images):
    return torch.from_numpy(np.moveaxis(np.asarray(images), -1, 1).copy())


def test_tcav_is_captums_for_the_same_vector(both, tmp_path):
    concept_module = pytest.importorskip("captum.concept")
    from captum.concept._utils.classifier import Classifier

    net, body, top = both
    x, concept, others = (jnp.asarray(RNG.random((n, SIDE, SIDE, 3)), "float32") for n in (12, 10, 30))
    concept = concept.at[..., 0].multiply(1.5)

    class Pattern(Classifier):
        """The difference of the two means, of all examples."""

        def __init__(self):
            self.found, self.kinds = None, []

        def train_and_eval(self, dataloader, **_):
            rows = [batch for batch in dataloader]
            inputs = torch.cat([row[0] for row in rows])
            labels = torch.cat([row[1] for row in rows])
            ours, theirs = inputs[labels == labels.min()], inputs[labels == labels.max()]
            vector = ours.mean(0) - theirs.mean(0)
            self.found = torch.stack([vector, -vector]) / vector.norm()
            self.kinds = [int(labels.min()), int(labels.max())]

        def weights(self):
            return self.found

        def classes(self):
            return self.kinds

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.top = body, top

        def forward(self, images):
            return self.top(self.body(images))

    def concept_of(number, name, images):
        return concept_module.Concept(number, name, torch.utils.data.DataLoader(_first(images), batch_size=4))

    theirs = concept_module.TCAV(
        Net(), layers=["body"], classifier=Pattern(), save_path=str(tmp_path), model_id="net"
    )
    pair = [concept_of(0, "concept", concept), concept_of(1, "random", others)]
    for target in range(CLASSES):
        found = theirs.interpret(_first(x), experimental_sets=[pair], target=target)
        counted = next(iter(found.values()))["body"]
        ours = tcav(
            net, x, target, layer="features", concept=concept, random=others, key=KEY, positions="each"
        )
        np.testing.assert_allclose(float(counted["sign_count"][0]), ours.score, atol=1e-3)
        # Captum's magnitude is the mean slope.
        np.testing.assert_allclose(float(counted["magnitude"][0]), ours.sensitivity.mean(), atol=1e-3)


def test_top_k_is_overcompletes_on_equal_weights():
    sae_module = pytest.importorskip("overcomplete.sae")
    features, codes, k = 10, 24, 4
    theirs = sae_module.TopKSAE(features, nb_concepts=codes, top_k=k)
    linear = theirs.encoder.final_block[0]
    with torch.no_grad():
        linear.bias.normal_()
    theirs.eval()
    directions = theirs.get_dictionary().detach().numpy()
    x = RNG.normal(size=(50, features)).astype(np.float32)
    with torch.no_grad():
        _, coded = theirs.encode(torch.from_numpy(x))
        decoded = theirs.decode(coded).numpy()
    ours = Sae(
        jnp.asarray(directions),
        jnp.asarray(linear.weight.detach().numpy().T),
        jnp.asarray(linear.bias.detach().numpy()),
        jnp.zeros(codes),
        jnp.zeros(features),
        jnp.ones(()),
        jnp.zeros(1),
        jnp.zeros(()),
        jnp.zeros(()),
        jnp.zeros(codes),
        k=k,
    )
    np.testing.assert_allclose(ours.encode(x), coded.numpy(), atol=1e-3)
    np.testing.assert_allclose(ours.decode(ours.encode(x)), decoded, atol=1e-3)


def test_matching_pursuit_is_overcompletes_on_equal_weights():
    sae_module = pytest.importorskip("overcomplete.sae")
    theirs = sae_module.MpSAE(10, nb_concepts=24, k=5).eval()
    directions = theirs.get_dictionary().detach().numpy()
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    x = RNG.normal(size=(50, 10)).astype(np.float32)
    theirs.get_dictionary = lambda: torch.from_numpy(directions)
    with torch.no_grad():
        _, coded = theirs.encode(torch.from_numpy(x))
    found = kinds.pursued(jnp.asarray(x), jnp.asarray(directions), 5)
    np.testing.assert_allclose(found, np.maximum(coded.numpy(), 0), atol=1e-3)


def test_batch_top_k_keeps_what_overcomplete_keeps():
    sae_module = pytest.importorskip("overcomplete.sae")
    theirs = sae_module.BatchTopKSAE(10, nb_concepts=24, top_k=100)
    x = RNG.normal(size=(50, 10)).astype(np.float32)
    pre, coded = theirs.train().encode(torch.from_numpy(x))
    codes = jnp.asarray(np.maximum(pre.detach().numpy(), 0))
    edge = kinds.border(codes, 100)
    np.testing.assert_allclose(jnp.where(codes >= edge, codes, 0), coded.detach().numpy(), atol=1e-3)


def test_archetypal_entries_are_overcompletes_of_length_one():
    """Both leave convex weights as they are and shorten long steps; theirs have lengths of their own."""
    sae_module = pytest.importorskip("overcomplete.sae")
    points = RNG.normal(size=(40, 10)).astype(np.float32)
    theirs = sae_module.RelaxedArchetypalDictionary(10, 24, torch.from_numpy(points), delta=0.7)
    weights = RNG.dirichlet(np.full(40, 0.1), size=24).astype(np.float32)
    offsets = RNG.normal(size=(24, 10)).astype(np.float32) * RNG.uniform(0, 0.5, (24, 1)).astype(np.float32)
    with torch.no_grad():
        theirs.W.copy_(torch.from_numpy(weights))
        theirs.Relax.copy_(torch.from_numpy(offsets))
        expected = theirs.get_dictionary().numpy()
    dictionary = {"weights": jnp.asarray(weights), "offsets": jnp.asarray(offsets)}
    found = _sae_training._directions(_sae_training._allowed(dictionary, 0.7), jnp.asarray(points))
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    assert 0 < (np.linalg.norm(offsets, axis=1) > 0.7).sum() < 24
