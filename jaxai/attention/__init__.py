"""Methods for transformers: maps from the attention matrices found in a network's program.

Maps of layers and of pixels need no methods of their own: `jaxai.layers.find` names the blocks of a
transformer, with tokens laid out on their grid for class activation maps, and `jaxai.lrp` takes the
composites `"attn_lrp"` and `"cp_lrp"`.
"""

from ._bidirectional import bidirectional
from ._drop_tokens import drop_tokens
from ._gradient_attention import gradient_attention
from ._legrad import legrad
from ._rollout import rollout

__all__ = [
    "bidirectional",
    "drop_tokens",
    "gradient_attention",
    "legrad",
    "rollout",
]
