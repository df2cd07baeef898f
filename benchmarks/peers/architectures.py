"""The shapes of VGG16 and EfficientNet-Lite0 that no weights tell."""

# Convolutions a block.
VGG_BLOCKS = (2, 2, 3, 3, 3)
# Name, window and stride of the inverted bottlenecks.
LITE_BLOCKS = (
    ("1a", 3, 1),
    ("2a", 3, 2),
    ("2b", 3, 1),
    ("3a", 5, 2),
    ("3b", 5, 1),
    ("4a", 3, 2),
    ("4b", 3, 1),
    ("4c", 3, 1),
    ("5a", 5, 1),
    ("5b", 5, 1),
    ("5c", 5, 1),
    ("6a", 5, 2),
    ("6b", 5, 1),
    ("6c", 5, 1),
    ("6d", 5, 1),
    ("7a", 3, 1),
)
