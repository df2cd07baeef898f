"""Every method by name, for `jaxai explain --method` and `jaxai methods`."""

from . import cam, gradients, perturbation, rules
from .method import Method

METHODS: dict[str, Method] = {
    method.name: method for family in (cam, gradients, rules, perturbation) for method in family.METHODS
}

__all__ = ["METHODS", "Method"]
