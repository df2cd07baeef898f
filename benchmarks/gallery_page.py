"""The page of the gallery: README.md from the numbers of gallery.json."""

import textwrap

OTHERS = ("efficientnet_lite1", "efficientnet_lite2")
NETWORKS = ("efficientnet_lite0", *OTHERS)
NATURALNESS = ("slope", "variation", "clipped", "saturation")


def page(numbers):
    """Return README.md."""
    lines = [
        "# Gallery",
        "",
        "Made by `python -m benchmarks.gallery docs/gallery`; nothing is chosen by hand.",
        "",
    ]
    for name, write in PAGES.items():
        if name in numbers:
            lines += write(numbers[name])
    return "\n".join(lines)


def paragraph(text):
    return [*textwrap.wrap(" ".join(text.split()), 110, break_on_hyphens=False), ""]


def table(head, rows):
    """Return the lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def channels_page(part):
    text = f"""{part["each"]} channels of the last layer of each of the five blocks, drawn by a fixed
        seed; blocks from left to right. Default recipe, but {part["size"]} pixels and {part["steps"]}
        steps (the defaults are 224 and 512), float32. A unit of conv5_3 sees 196 pixels. Percentile:
        cuttings of photographs (36) with a smaller activation. Held out:
        activation kept under transforms that were not used (flips, blur, colours, shifts of a
        tenth)."""
    rows = [
        [r["image"], f"{r['percentile']:.0f}", f"{r['held_out']:.2f}", f"{r['slope']:.2f}"]
        for r in part["rows"]
    ]
    return [
        "## Channels of VGG16",
        "",
        *paragraph(text),
        "![Channels](channels.jpg)",
        "",
        *table(["channel", "percentile", "held out", "slope"], rows),
    ]


def classes_page(part):
    text = f"""Default recipe, 224 pixels, {part["steps"]} steps, float32; {len(part["rows"])} classes drawn
        over all 1000 by a fixed seed, of which the first {part["shown"]} are shown. Rank: place of the class
        among the 1000 of a network, 1 is the highest; p: its probability. Lite1 and Lite2 had no part in
        making the images, and name {part["recognised"][str(part["steps"])]["both others"]} of the
        {len(part["rows"])} first, both of them. {part["seconds"]:.0f} s on two busy cores, compilation
        included."""
    rows = []
    for row in part["rows"]:
        cells = [f"{row[f'rank_{name}']}, {p:.2f}" for name, p in zip(OTHERS, row["transfer"], strict=True)]
        rows.append([row["image"], row["rank_efficientnet_lite0"], *cells, f"{row['held_out']:.2f}"])
    by_steps = [
        [steps, *(found[name] for name in NETWORKS), found["both others"]]
        for steps, found in part["recognised"].items()
    ]
    return [
        "## Classes of EfficientNet-Lite0",
        "",
        *paragraph(text),
        "![Classes](classes.jpg)",
        "",
        *table(["class", "rank in Lite0", "rank, p in Lite1", "rank, p in Lite2", "held out"], rows),
        *paragraph("How many of them are named first after so many steps of the same run:"),
        *table(["steps", "Lite0", "Lite1", "Lite2", "by both Lite1 and Lite2"], by_steps),
    ]


def recipes_page(part):
    text = f"""The same classes of EfficientNet-Lite0 (from above: {", ".join(part["classes"])}) by each
        recipe, {part["size"]} pixels, {part["steps"]} steps, one key; means over the classes. MACO sees
        {part["crops"]} crops of an image a step (its default is 32), the others one view; it puts one small
        object where its crops look, so that the whole image is seldom taken for the class. The first row
        is what cuttings of photographs measure. Slope: of the amplitude spectrum, in logarithms.
        Variation: mean difference of neighbouring pixels. Clipped: values within 1/50 of black or white.
        Saturation: largest minus smallest colour. Transfer: probability of the class in Lite1 and Lite2,
        and how many both name first. Lucid is its own recipe: a decay of 1, narrower transforms."""
    kept = (*NATURALNESS, "transfer", "held_out")
    rows = [
        [name, *(f"{row[key]:.3f}" if key in row else "" for key in kept), row.get("both others", "")]
        for name, row in part["table"].items()
    ]
    return [
        "## Recipes",
        "",
        *paragraph(text),
        "![Recipes](recipes.jpg)",
        "",
        *table(["", *NATURALNESS, "transfer", "held out", "both name first"], rows),
        *comparison(part["table"], "fourier, transforms", "pixels"),
        *comparison(part["table"], "fourier, transforms", "pixels, transforms"),
        *comparison(part["table"], "fourier, transforms", "Lucid"),
        *comparison(part["table"], "maco", "fourier, transforms"),
        "",
    ]


def comparison(rows, first, second):
    """Return in words which of two recipes is closer to the photographs, measure by measure."""
    real, one, other = rows["photographs"], rows[first], rows[second]
    closer = [key for key in NATURALNESS if abs(one[key] - real[key]) < abs(other[key] - real[key])]
    rest = [key for key in NATURALNESS if key not in closer]
    text = f"""- {first} against {second}: closer to the photographs in
        {", ".join(closer) or "no measure"}{f"; not in {', '.join(rest)}" if rest else ""}. Transfer
        {one["transfer"]:.3f} against {other["transfer"]:.3f}, held out {one["held_out"]:.2f} against
        {other["held_out"]:.2f}."""
    return paragraph(text)[:-1]


def dreams_page(part):
    text = "DeepDream on the VGG16 convolutions from a photograph and from noise, default options, bfloat16."
    return ["## Dreams", "", *paragraph(text), "![Dreams](dreams.jpg)", ""]


def large_page(part):
    programs = "; ".join(f"{name}: {mib:.0f} MiB" for name, mib in part["program_mib"].items())
    text = f"""One DeepDream step (layer {part["layer"]} of VGG16) at the full {part["width"]} x
        {part["height"]} pixels, in tiles of 512: the process had {part["before_mib"]:.0f} MiB with
        network and photograph before, and {part["peak_mib"]:.0f} MiB at its peak;
        {part["seconds"]:.0f} s on two busy cores, compilation included. Scratch memory of the compiled
        step, as XLA states it: {programs}. What grows with a tiled photograph is the photograph itself
        and its gradient, 96 MB each at eight megapixels."""
    return ["## A photograph of eight megapixels", "", *paragraph(text)]


PAGES = {
    "channels": channels_page,
    "classes": classes_page,
    "recipes": recipes_page,
    "dreams": dreams_page,
    "large": large_page,
}
