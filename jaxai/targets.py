"""What is explained: a class, a class for each image, k classes for each image, or a function of the scores.

Every method takes `targets` in one of these forms:

- `None`: each image's top class;
- `int`: one class for all images;
- `int[batch]`: a class for each image;
- `int[batch, k]`: k different classes for each image; results gain an axis k after the batch. One-hot rows
  are refused: pass `rows.argmax(-1)`;
- a callable `outputs -> float[batch]` of what the model returns (segmentation, embeddings, contrasts,
  regressions, one of several outputs), which must treat each image alone.

Scores [batch, classes] are logits of exclusive classes. Methods that explain the probability of a class have
one rule:

- several scores: their softmax;
- one score, [batch, 1]: its sigmoid, the probability of class 0;
- a model whose program ends in a softmax or a sigmoid returns probabilities: they are taken as they are, with
  a warning. So a network of independent labels that ends in sigmoids is explained label by label;
- a callable: its own value.

Where the program does not say that scores are probabilities and their values look like it, a warning asks for
a callable target. The scores of a black box are probabilities if all of them lie in [0, 1] and each row sums
to 1.
"""

from ._frame.targets import Targets as Targets

__all__ = ["Targets"]
