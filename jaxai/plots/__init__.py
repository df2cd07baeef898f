"""Pictures of explanations: pure functions from arrays to pixels, and figures made of them.

Pixels are uint8 [height, width, 3]; photos are float in [0, 1]. Colour maps are perceptually uniform. Figures
are Matplotlib objects outside pyplot: no window is opened and no global state is touched.
"""

from ._colors import DIVERGING, SEQUENTIAL, colorize, diverging, limits
from ._comparison import comparison
from ._concepts import concept_change, concept_page, concept_sheet
from ._curves import curves
from ._figures import Bar, Panel, compose, heatmap_panel, pair, photo_panel, pixels_panel, segments_panel
from ._layers import layers
from ._output import png, render, vector
from ._pixels import heatmap_overlay, segment_mask, signed_pixels
from ._swaps import swapped_cells

__all__ = [
    "DIVERGING",
    "SEQUENTIAL",
    "Bar",
    "Panel",
    "colorize",
    "comparison",
    "compose",
    "concept_change",
    "concept_page",
    "concept_sheet",
    "curves",
    "diverging",
    "heatmap_overlay",
    "heatmap_panel",
    "layers",
    "limits",
    "pair",
    "photo_panel",
    "pixels_panel",
    "png",
    "render",
    "segment_mask",
    "segments_panel",
    "signed_pixels",
    "swapped_cells",
    "vector",
]
