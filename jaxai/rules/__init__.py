"""Rule-based backpropagation on the jaxpr of any function."""

__all__: list[str] = []
