"""Run the study, or go on with it; write the page from what is there.

    python -m benchmarks.study [--quick] [--part truth|birds|pairs|photos|photos_second|photos_samples|
        photos_vit|photos_vgg16|sanity] [--method TITLE]... [--work DIR] [--seeds N]
    python -m benchmarks.study --page

Every unit of work is a file in the work folder, so that a run that was stopped goes on where it was. `--page`
gathers them in benchmarks/results/study and writes docs/experiments.md from those.
"""

import argparse
import itertools
import os
import time
from pathlib import Path

import jaxai

jaxai.configure_cpu()

import jax  # noqa: E402

# Hours on one core of a busy machine: measured for the first, estimated for the others.
HOURS = {
    "truth": 1.2,
    "birds": 0.6,
    "pairs": 0.5,
    "photos": 2.0,
    "photos_second": 0.4,
    "photos_samples": 0.3,
    "photos_vit": 0.4,
    "photos_vgg16": 0.2,
    "sanity": 5.0,
}
SEEDS = 5
# The methods of the parts that repeat others, where there are ten minutes.
QUICK = ("saliency", "Grad-CAM", "input x gradient", "guided backprop", "LRP")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer tasks, seeds and images: ten minutes")
    parser.add_argument("--part", choices=tuple(HOURS), help="one part only; all by default")
    parser.add_argument(
        "--method",
        action="append",
        help="one method only, whatever it costs; may be given again. Not with --part birds",
    )
    parser.add_argument("--work", type=Path, default=Path("out/study"), help="where units of work are kept")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="trainings for each task")
    parser.add_argument("--page", action="store_true", help="write docs/experiments.md, run nothing")
    options = parser.parse_args()
    if options.page:
        from . import page

        page.write(options.work)
        return
    parts = [options.part] if options.part else list(HOURS)
    work = options.work / "quick" if options.quick else options.work
    hours = sum(HOURS[part] for part in parts)
    said = (
        "at most ten minutes" if options.quick else f"about {hours:.1f} hours on one core, less what is done"
    )
    print(f"{', '.join(parts)}: {said}; units in {work}", flush=True)
    programs = options.work / "programs"
    jax.config.update("jax_compilation_cache_dir", str(programs.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    began = time.perf_counter()
    for part in parts:
        for line in _run(part, work, options):
            print(f"{time.perf_counter() - began:6.0f} s  {part}: {line}", flush=True)


def _run(part, work, options):
    if part == "truth":
        from . import truth

        if options.quick:
            return truth.run(work, seeds=1, tasks=truth.FIRST[:1], number=4, only=options.method)
        return itertools.chain(
            *(
                truth.run(work, seeds=options.seeds, tasks=tasks, only=options.method)
                for tasks in (truth.FIRST, truth.LATER)
            )
        )
    from . import pairs, parts, photos, sanity

    few = options.method or (QUICK if options.quick else None)
    if part == "birds":
        return parts.run(work, seeds=1, number=4) if options.quick else parts.run(work, seeds=options.seeds)
    if part == "pairs":
        size = {"seeds": 1, "number": 4} if options.quick else {"seeds": options.seeds}
        return pairs.run(work, only=few, **size)
    if part == "photos" and options.quick:
        return photos.run(work, part=part, only=options.method, number=2, most=30)
    if part in photos.PARTS:
        return photos.run(work, part=part, only=few, **({"number": 2} if options.quick else {}))
    return sanity.run(work, only=few, **({"number": 1} if options.quick else {}))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
