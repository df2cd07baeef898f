"""The rules family on the command line."""

from .method import Method

METHODS: tuple[Method, ...] = ()
