"""Results of functions show themselves: short texts of named tuples, pictures of metrics' curves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai import metrics, plots

SHARE = jnp.array([[0, 0.5, 1.0], [0, 0.5, 1.0], [0, 0.25, 1.0]])  # The third image's differ.
MOST, LEAST = jnp.array([[1, 0, 0.0]] * 3), jnp.array([[1, 1, 0.0]] * 3)
MEASURED = {
    "Curve": metrics.Curve(jnp.stack([MOST, LEAST], 1), jnp.ones((3, 2)), SHARE),
    "RelevanceGain": metrics.RelevanceGain(jnp.ones(3), MOST, LEAST, SHARE),
    "Road": metrics.Road(jnp.ones(3), MOST, LEAST, MOST, LEAST, SHARE[0]),
    "InformationCurve": metrics.InformationCurve(MOST, jnp.ones(3), SHARE),
    "Randomization": metrics.Randomization(MOST, jnp.ones(3), ("$a$", "b", "c")),
}


@pytest.mark.parametrize(
    "kind, count",
    [("Curve", 7), ("RelevanceGain", 8), ("Road", 8), ("InformationCurve", 4), ("Randomization", 4)],
)
def test_metrics_draw_their_curves(kind, count, tmp_path):
    result = MEASURED[kind]
    axes = result.plot().axes[0]
    assert len(axes.lines) == count, "one of each image and target, and the means"
    means = [line for line in axes.lines if line.get_linewidth() == 2]
    assert len(means) == (2 if count == 8 else 1)
    end = 2 if kind == "Randomization" else 1
    np.testing.assert_allclose(means[0].get_xdata()[[0, -1]], [0, end])
    quarter = {  # The mean of all curves' values a quarter of the way along.
        "Curve": (0.5 + 0.5 + 0 + 1 + 1 + 1) / 6,
        "RelevanceGain": (0.5 + 0.5 + 0) / 3,
    }.get(kind, 0.5)
    np.testing.assert_allclose(means[0].get_ydata()[50], quarter, atol=1e-6)
    assert len(axes.collections) == len(means) - 1, "the gain is shaded"
    assert result._repr_png_()[1:4] == b"PNG"
    result.save(tmp_path)
    with np.load(tmp_path / "arrays.npz") as arrays:
        for field in result._fields:
            np.testing.assert_array_equal(arrays[field], np.asarray(getattr(result, field)))
    assert result.to_html(tmp_path / "page.html").count("<img") == 1


def test_results_without_values_or_curves_are_not_drawn():
    def traced(result):
        assert result._repr_png_() is None
        assert repr(result).startswith("RelevanceGain(gain float32[3], most_first float32[3,3], ")
        with pytest.raises(ValueError, match="no values yet"):
            result.plot()
        return 0

    jax.eval_shape(traced, MEASURED["RelevanceGain"])
    with pytest.raises(TypeError, match="must have a curve, as that of jaxai.metrics.deletion"):
        plots.curves(metrics.Correlation(jnp.ones(1), jnp.ones(1)))


def public_tuples():
    spaces = [jaxai.metrics, jaxai.gradients, jaxai.features, jaxai.perturbation]
    spaces += [jaxai.concepts, jaxai.concepts.counterfactuals]
    public = [getattr(space, name) for space in spaces for name in space.__all__]
    return [kind for kind in public if isinstance(kind, type) and issubclass(kind, tuple)]


def test_named_tuples_have_short_texts():
    kinds = public_tuples()
    assert len(kinds) >= 18
    for kind in kinds:
        text = repr(kind(*[np.zeros((20, 300), np.float32)] * len(kind._fields)))
        fields = ", ".join(f"{field} float32[20,300]" for field in kind._fields)
        assert text == f"{kind.__name__}({fields})"
    found = metrics.Correlation(np.array([0.123456, -1]), np.float32(2))
    assert repr(found) == "Correlation(correlation [0.123, -1.0], standard_error 2.0)"
    layers = MEASURED["Randomization"]._replace(layers=tuple("abcdef"))
    assert repr(layers).endswith("layers (a, b, c, d, ...))")
