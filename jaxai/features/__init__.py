"""Feature visualization: what a network has learned."""

__all__: list[str] = []
