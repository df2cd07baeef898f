"""What is explained: a class, a class for each image, k classes for each image, or a function of the scores.

Every method takes `targets` in one of these forms:

- `None`: each image's top class;
- `int`: one class for all images;
- `int[batch]`: a class for each image;
- `int[batch, k]`: k classes for each image; results gain an axis k after the batch;
- a callable `scores -> float[batch]` of the raw scores (segmentation, embeddings, contrasts, probabilities),
  which must treat each image alone.
"""

from ._frame.targets import Targets as Targets

__all__ = ["Targets"]
