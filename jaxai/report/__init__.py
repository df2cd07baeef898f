"""From photos to maps, pictures, files and pages: what the command and `jaxai.explain` share."""

from ._explanation import Explanation

__all__ = ["Explanation"]
