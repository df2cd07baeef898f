"""The contract text: what shared arguments and errors mean is written once and stands in every docstring."""

import inspect

import pytest

import jaxai
from jaxai._frame import contract, describe


def method(model, images, targets=None, *, layer=None, mine=3, batch_size=None, **options):
    """Explain.

    More.

    Args:
        mine: Its own.

    Raises:
        TypeError: If it is odd.
        ValueError: If it is even.
        OSError: If it is not there.

    Example:
        >>> 1 + 1
        2
    """


def fresh(text=method.__doc__, module="jaxai.gradients._fresh"):
    def copy(model, images, targets=None, *, layer=None, mine=3, batch_size=None, **options):
        pass

    copy.__doc__, copy.__module__ = text, module
    return copy


def test_a_docstring_is_completed_in_the_order_of_the_signature():
    found = contract.completed(fresh(), "heatmap")
    parts = contract.sections(found.__doc__)
    assert list(parts) == ["", "Args", "Returns", "Raises", "Example"]
    assert parts[""] == "Explain.\n\nMore.\n" or parts[""] == "Explain.\n\nMore."
    said = contract.entries(parts["Args"])
    assert list(said) == ["model", "images", "targets", "layer", "mine", "batch_size", "options"]
    assert "**options: " in parts["Args"] and said["mine"] == "Its own."
    assert said["model"].startswith("A layered model") and said["layer"].endswith(
        "None picks the last layer that is not a pool and has more than one position."
    )
    assert parts["Returns"] == "Maps [batch, height, width]; [batch, k, ...] for k classes per image."
    assert contract.entries(parts["Raises"]) == {
        "TypeError": "If an argument is of the wrong kind. If it is odd.",
        "ValueError": "If shapes do not fit, a class does not exist, a layer does not exist, or a number is "
        "out of range. If it is even.",
        "OSError": "If it is not there.",
    }
    assert parts["Example"] == ">>> 1 + 1\n2"
    assert max(map(len, found.__doc__.splitlines())) <= 100


def test_what_a_docstring_says_wins():
    found = contract.completed(
        fresh("Explain.\n\nArgs:\n    mine: Its own.\n    model: A net\n        of mine.\n")
    )
    assert contract.entries(contract.sections(found.__doc__)["Args"])["model"] == "A net of mine."


def test_the_same_text_comes_out_of_indented_and_plain_docstrings():
    # Python 3.13 takes the indentation away.
    plain = contract.completed(fresh(inspect.cleandoc(method.__doc__)))
    assert plain.__doc__ == contract.completed(fresh(method.__doc__)).__doc__


def test_a_docstring_is_completed_by_that_of_another():
    whole = contract.completed(fresh())
    found = contract.like(whole)(
        fresh("Explain.\n\nArgs:\n    mine: Other.\n\nRaises:\n    ValueError: If late.\n")
    )
    parts, known = contract.sections(found.__doc__), contract.sections(whole.__doc__)
    expected = {**contract.entries(known["Args"]), "mine": "Other."}
    assert contract.entries(parts["Args"]) == expected and list(expected)[0] == "model"
    errors = contract.entries(known["Raises"])
    assert contract.entries(parts["Raises"]) == {**errors, "ValueError": f"{errors['ValueError']} If late."}
    assert contract.like(whole)(fresh(None)).__doc__ is None
    with pytest.raises(ValueError, match="copy does not say what 'model' is"):
        contract.like(fresh("Explain."))(fresh("Explain."))


def test_without_docstrings_nothing_is_made_up():
    assert contract.completed(fresh(None)).__doc__ is None


def test_what_is_not_described_anywhere_is_an_error():
    with pytest.raises(ValueError, match="copy does not say what 'mine' is"):
        contract.completed(fresh("Explain."))
    with pytest.raises(ValueError, match=r"copy describes \['other'\], which it does not take"):
        contract.completed(fresh("Explain.\n\nArgs:\n    mine: M.\n    other: O.\n"))


@pytest.mark.parametrize("name", describe.table())
def test_methods_say_what_they_return_and_raise(name):
    parts = describe.table()[name].sections
    assert parts["Returns"] and "TypeError: If an argument is of the wrong kind." in parts["Raises"]
    assert "shapes do not fit" in parts["Raises"] or name == "forgrad"


def test_none_is_explained_wherever_it_is_a_default():
    for name, description in describe.table().items():
        for word in ("targets", "layer", "batch_size", "baseline"):
            parameter = description.parameters.get(word)
            if (
                parameter is not None
                and parameter.default is None
                and "Not used" not in description.arguments[word]
            ):
                assert "None" in description.arguments[word], (name, word)


@pytest.mark.slow
def test_nothing_of_it_is_lost_when_docstrings_are_left_out():
    import subprocess
    import sys

    code = "import jaxai; print(jaxai.grad_cam.__doc__, len(jaxai._frame.describe.table()))"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["None", str(len(describe.table()))], done.stderr
    assert jaxai.grad_cam.__doc__
