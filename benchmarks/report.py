"""The table and the picture of a comparison."""

import json
import statistics
from pathlib import Path

from .cases import cases
from .expected import expected

# Of a forward pass; the gradient by the image needs as much again.
GFLOP = {"efficientnet_lite0": 0.77, "vgg16": 31.0}


def _seconds(value):
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.0f} ms"


def line(row: dict) -> str:
    """Return a row as one line for the terminal."""
    where = f"{row['case']['network']:18} {row['name']:34} batch {row['case']['batch']:<3}"
    if "error" in row:
        return f"{where} {row.get('peer', 'jaxai')}: {row['error']}"
    ours = _seconds(statistics.median(row["jaxai"]))
    if row["peer"] is None:
        return f"{where} jaxai {ours}"
    kind = "tuned" if row["tuned"] else "as shipped"
    theirs = _seconds(statistics.median(row["peer_seconds"]))
    return f"{where} jaxai {ours:>8}   {row['peer']} {kind} {theirs:>8}   {row['ratio']:.2f}x"


def markdown(result: dict) -> str:
    """Return the comparison as Markdown."""
    sides = [
        f"{side}: {', '.join(f'{k} {v}' for k, v in answer['versions'].items())}"
        for side, answer in result["sides"].items()
        if answer["ok"]
    ]
    flags = result["sides"]["jaxai"].get("about", {}).get("flags") or "default flags"
    peak = result["matrix_peak_gflops"]
    lines = [
        f"# jaxai and its peers, {result['precision']}",
        "",
        f"{result['date']}; {result['machine']}; {result['threads']} threads on every side; load of other"
        f" programs at the start {result['load']:.1f}; a matrix product reaches {peak:.0f} GFLOP/s.",
        "",
        *(f"- {side}" for side in sides),
        f"- XLA flags: `{flags}`",
        *(["- `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` on every side"] if result.get("huge_pages") else []),
        *(f"- {network}: {where}" for network, where in result["weights"].items()),
        "",
        "*Faster* is the median ratio of neighbouring runs, peer / jaxai (above 1: jaxai is faster), with the"
        " smallest and largest. *Agreement* is the correlation with the peer's result (random methods draw"
        " different samples; pytorch-grad-cam's maps are scaled to [0, 1]). *Cold* is jaxai's first run, with"
        " compilation. *Memory* is the largest resident size of the processes so far, jaxai / peer. *Aim* is"
        " the ratio set out for.",
        "",
    ]
    for network in result["weights"]:
        lines += [
            f"## {network}",
            "",
            "| method | batch | peer | | jaxai | peer | faster | range | aim | agreement | cold | GB |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in result["rows"]:
            if row["case"]["network"] != network:
                continue
            head = f"| {row['name']} | {row['case']['batch']} |"
            if "error" in row:
                lines.append(f"{head} {row.get('peer', '')} | {row['error']} | | | | | | | | |")
                continue
            ours = _seconds(statistics.median(row["jaxai"]))
            cold = _seconds(row["jaxai_cold"])
            if row["peer"] is None:
                memory = f"{row['jaxai_peak_memory'] / 1e9:.1f}"
                lines.append(f"{head} none | | {ours} | | | | | | {cold} | {memory} |")
                continue
            theirs = _seconds(statistics.median(row["peer_seconds"]))
            memory = f"{row['jaxai_peak_memory'] / 1e9:.1f} / {row['peer_peak_memory'] / 1e9:.1f}"
            match = "" if row["agreement"] is None else f"{row['agreement']:.4f}"
            low, high = row["range"]
            kind = "tuned" if row["tuned"] else "as shipped"
            lines.append(
                f"{head} {row['peer']} | {kind} | {ours} | {theirs} | **{row['ratio']:.2f}** |"
                f" {low:.2f}-{high:.2f} | {aim(result, row)} | {match} | {cold} | {memory} |"
            )
        lines.append("")
        lines += _notes(row for row in result["rows"] if _of(row, network))
        lines += ["", *_shares(result, network), ""]
    return "\n".join(lines)


def _notes(rows):
    """Return what both sides of a row do not share, once each: of the row, and of one peer alone."""
    notes: dict[str, None] = {}
    for row in rows:
        if row["case"].get("note"):
            notes[f"- {row['name']}: {row['case']['note']}."] = None
        if row.get("note"):
            notes[f"- {row['name']}, {row['peer']}: {row['note']}."] = None
    return list(notes)


def _of(row, network):
    return row["case"]["network"] == network


def _shares(result, network):
    """Return the rates of forward passes and gradients beside that of a matrix product."""
    lines, done = [], set()
    for row in result["rows"]:
        method, batch = row["case"]["method"], row["case"]["batch"]
        passes = {"forward": 1, "saliency": 2}.get(method)
        if not _of(row, network) or passes is None or "jaxai" not in row or (method, batch) in done:
            continue
        done.add((method, batch))
        rate = passes * GFLOP[network] * batch / statistics.median(row["jaxai"])
        share = 100 * rate / result["matrix_peak_gflops"]
        lines.append(f"{method}, batch {batch}: {rate:.0f} GFLOP/s, {share:.0f}% of the matrix product's.  ")
    return lines


def aim(result: dict, row: dict) -> str:
    """Return the ratio that a row is meant to reach, marked where it is missed."""
    wanted = expected(row["case"], row["peer"], row["tuned"]) if result["precision"] == "float32" else None
    if wanted is None:
        return ""
    return f"{wanted:g}" if row["ratio"] >= wanted else f"{wanted:g}, **missed**"


def picture(result: dict, path: Path) -> None:
    """Write bars of the ratios, one a peer and row; a column a network."""
    from matplotlib.figure import Figure

    rows = [row for row in result["rows"] if "ratio" in row]
    networks = [network for network in result["weights"] if any(_of(row, network) for row in rows)]
    if not rows:
        return
    colors = {False: "#31688e", True: "#35b779"}
    longest = max(sum(_of(row, network) for row in rows) for network in networks)
    figure = Figure(figsize=(8 * len(networks), 0.19 * longest + 1.2), layout="constrained")
    for axes, network in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
        own = [row for row in rows if _of(row, network)]
        names = [f"{row['name']}, batch {row['case']['batch']} / {row['peer']}" for row in own]
        axes.barh(range(len(own)), [row["ratio"] for row in own], color=[colors[row["tuned"]] for row in own])
        axes.set_yticks(range(len(own)), names, fontsize=7)
        axes.set_ylim(longest - 0.4, -0.6)
        axes.set_xscale("log")
        axes.axvline(1, color="black", linewidth=1)
        axes.set_title(network, fontsize=10)
        axes.set_xlabel("times faster than the peer (blue: as shipped, green: tuned)")
    figure.savefig(path, dpi=90)


def _key(row):
    return row["case"]["network"], row["name"], row["case"]["batch"]


CONDITIONS = ("machine", "precision", "threads", "huge_pages")


def check_conditions(old: dict, new: dict, fields: tuple[str, ...] = CONDITIONS) -> None:
    """Raise a ValueError if two results were measured on different machines or in different precisions."""
    for field in fields:
        if old.get(field, False) != new[field]:
            raise ValueError(f"{field} is {new[field]!r} now and was {old[field]!r}: write to another file")


def merge(old: dict, new: dict) -> dict:
    """Return the rows of two results under the same conditions, the new one's where both have them.

    Rows of peers that the new one did not run stay, and so do the versions of a peer that did not start this
    time; a row without a peer stands only where none has one.
    """
    compared = {_key(row) for row in old["rows"] if row.get("peer")}
    added = [row for row in new["rows"] if row.get("peer") or _key(row) not in compared]
    measured = {(_key(row), peer) for row in added for peer in (row.get("peer"), None)}
    weights = old["weights"] | new["weights"]
    kept = [row for row in old["rows"] if (_key(row), row.get("peer")) not in measured]
    methods = {name: place for place, name in enumerate(dict.fromkeys(c.method for c in cases(quick=False)))}
    rows = sorted(
        kept + added,
        key=lambda row: (
            list(weights).index(row["case"]["network"]),
            methods.get(row["case"]["method"], len(methods)),
            row["case"]["batch"],
            row["name"],
        ),
    )
    return new | {
        "rows": rows,
        "weights": weights,
        "sides": old["sides"] | {side: about for side, about in new["sides"].items() if about["ok"]},
        "load": max(old["load"], new["load"]),
        "matrix_peak_gflops": max(old["matrix_peak_gflops"], new["matrix_peak_gflops"]),
    }


def write(result: dict, path: Path) -> None:
    """Write JSON, table and picture beside each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    picture(result, path.with_suffix(".png"))
