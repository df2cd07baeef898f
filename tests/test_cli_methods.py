"""Methods as the command takes them: names, options by kind, what is supplied, their pages and table."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxai.cli import method_pages
from jaxai.report import _methods as methods
from jaxai.report._methods import METHODS
from jaxai.report._supplies import SUPPLIED, preferred


def test_methods_by_name_with_options():
    words = [
        "lime.num_samples=64",
        "lime.fill=blur",
        "grad-cam.relu=false",
        "lime.alpha=2",
        "lime.tolerance=none",
    ]
    lime, cam = methods.choose("lime, grad-cam", words)
    assert (lime.name, cam.name) == ("lime", "grad_cam")
    assert lime.options == {"num_samples": 64, "fill": "blur", "alpha": 2.0, "tolerance": None}
    assert cam.options == {"relu": False}
    assert methods.choose("occlusion", ["occlusion.window=8,16"])[0].options == {"window": (8, 16)}
    assert methods.choose("occlusion", ["occlusion.window=[8, 16]"])[0].options == {"window": (8, 16)}
    assert methods.choose("occlusion", ["occlusion.fill=0.25"])[0].options == {"fill": 0.25}
    settings = methods.reported(lime)
    assert settings["num_samples"] == 64 and settings["kernel_width"] == 0.25 and settings["fill"] == "blur"
    assert not {"key", "segments", "batch_size", "masks"} & settings.keys()
    json.dumps([methods.reported(methods.Chosen(method)) for method in METHODS.values()], allow_nan=False)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ("nope", [], "unknown method 'nope'; the methods are .*grad_cam"),
        ("gradcam", [], "unknown method 'gradcam'; did you mean grad_cam"),
        ("lime,", [], "unknown method ''"),
        ("lime", ["num_samples=3"], "`--option num_samples=3` must be METHOD.NAME=VALUE"),
        ("lime", ["lime.num_samples"], "must be METHOD.NAME=VALUE"),
        ("lime", ["grad_cam.relu=0"], "'grad_cam' is not among the methods lime"),
        ("lime", ["lime.samples=3"], "lime has no option 'samples'; did you mean num_samples"),
        ("lime", ["lime.key=3"], "lime has no option 'key'; lime has the options .*num_samples"),
        ("lime", ["lime.masks=3"], "lime has no option 'masks'"),
        ("grad_cam_plus_plus", ["grad_cam_plus_plus.score_function=3"], "has no option 'score_function'"),
        ("lime", ["lime.tolerance=nan"], "lime.tolerance=nan`: expected a finite number"),
        ("lime", ["lime.tolerance=-inf"], "expected a finite number"),
        ("lime", ["lime.alpha=1e999"], "expected a finite number"),
        ("lime", ["lime.alpha=x"], "expected a number$"),
        ("lime", ["lime.alpha=None"], "expected a number$"),
        ("lime", ["lime.num_samples=100000000000000000000"], "finite number of at most 2147483647"),
        ("lime", [f"lime.num_samples={'9' * 150}"], "finite number of at most 2147483647"),
        ("lime", [f"lime.num_samples={'-' * 200_000}1"], "expected at most 200 characters; got 200001"),
        ("lime", ["lime.num_samples=0.5"], "expected a whole number$"),
        ("lime", ["lime.num_samples=True"], "expected a whole number$"),
        ("lime", ["lime.sampling=3"], "expected a word$"),
        ("grad_cam", ["grad_cam.relu=1"], "expected True or False$"),
        ("occlusion", ["occlusion.window=(8,'x')"], "expected numbers with commas between"),
        ("occlusion", ["occlusion.window=8,nan"], "expected a whole number or several numbers"),
        ("occlusion", ["occlusion.fill={1: 2}"], "expected a whole number, a number, True or False"),
    ],
)
def test_wrong_methods(names, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        methods.choose(names, options)
    assert len(str(caught.value)) < 1500


def test_wrong_segmentation():
    with pytest.raises(ValueError, match="`--segments`: unknown method 'slick'; did you mean slic"):
        methods.check_segmentation("slick")


def test_what_methods_need_is_supplied():
    """Every method can be run: what has no default, and the key where randomness is an option, is given."""
    for name, description in METHODS.items():
        for parameter in description.parameters.values():
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
                assert parameter.name in SUPPLIED, (name, parameter.name)
        assert not set(methods.options_of(description)) & set(SUPPLIED)
    assert "key" in SUPPLIED and methods.Chosen(METHODS["occlusion"]).needs("key")
    assert methods.Chosen(METHODS["layer_gradients"]).settings() == {"times_activation": True}
    assert methods.Chosen(METHODS["layer_gradients"], {"times_activation": False}).settings() == {
        "times_activation": False
    }
    assert not methods.Chosen(METHODS["grad_cam"]).signed
    assert methods.Chosen(METHODS["grad_cam"], {"relu": False}).signed


def test_methods_that_are_left_out_say_why():
    for name in ("full_gradients", "grad_cam_all_classes", "feature_permutation"):
        with pytest.raises(ValueError, match=f"the command does not offer {name}: "):
            methods.choose(name, [])


@pytest.mark.parametrize("name", METHODS)
def test_a_page_for_each_method(name):
    lines = method_pages.page(METHODS[name])
    assert max(map(len, lines)) <= 80 and lines[0] == f"{name}: {METHODS[name].title}"
    text = " ".join(" ".join(lines).split())
    own = preferred(METHODS[name])
    assert METHODS[name].summary in text and f"Cost: {METHODS[name].passes(**own)} (" in text
    assert all(f"{option} = {value} (of jaxai.{name}: " in text for option, value in own.items())
    assert all(f"  {option} = " in "\n".join(lines) for option in methods.options_of(METHODS[name]))
    words = "\n".join(lines).split("Example:")[1].replace("\\\n", "").split()
    assert words[:5] == ["jaxai", "explain", "cat", "--method", name]
    methods.choose(name, words[6:])


def test_the_table_in_the_documentation_is_made_from_the_methods():
    text = (Path(__file__).parents[1] / "docs/methods.md").read_text("utf-8")
    start, end = "<!-- methods: made by `jaxai methods --markdown` -->\n", "<!-- end of methods -->"
    assert text.split(start)[1].split(end)[0].splitlines() == method_pages.table()


def test_superpixels_of_one_colour_become_a_grid():
    flat = np.full((1, 32, 32, 3), 0.5, np.float32)
    halves = flat.copy()
    halves[:, :, 16:] = (0.9, 0.1, 0.1)
    cut = methods.superpixels(np.concatenate([flat, halves]), "felzenszwalb")
    assert cut.methods == ("grid", "felzenszwalb")
    assert cut.counts == (64, 2)
    assert cut.labels[0].max() == 63 and cut.labels.dtype == np.int32
