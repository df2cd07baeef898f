"""Explanations by asking the model about changed images."""

__all__: list[str] = []
