"""Writes models/imagenet_labels.txt: the first WordNet name of each of ImageNet's 1000 classes, in order.

The two tables are timm's (Apache-2.0): `imagenet_synsets.txt`, the order of the classes, and
`imagenet_synset_to_lemma.txt`, the WordNet names of each synset. Run from the repository's root:

    python weights_convert/imagenet_labels.py TIMM/data/_info models/imagenet_labels.txt
"""

import argparse
from pathlib import Path


def first_names(tables: Path) -> list[str]:
    """Return the first name of each class from the folder of timm's tables."""
    names = {}
    for line in (tables / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines():
        synset, lemmas = line.split("\t")
        names[synset] = lemmas.split(",")[0].strip()
    synsets = (tables / "imagenet_synsets.txt").read_text("utf-8").split()
    return [names[synset] for synset in synsets]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    labels = first_names(arguments.tables)
    arguments.out.write_text("\n".join(labels) + "\n", "utf-8")
