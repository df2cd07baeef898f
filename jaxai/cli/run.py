"""A run of `jaxai explain`, which prints events and writes each result to disk as soon as it exists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..report import _errors as messages
from ..report import _outputs as outputs
from ..report._photos import Photo
from ..report._progress import Progress
from ..report._record import Part, Subject
from ..report._run import Failed, Finished, Noted, Request, Said, Seen, explain
from ..report._writer import Extras, Writer
from . import terminal


@dataclass
class Outcome:
    """How a run ends.

    Attributes:
        failed: The photos that were not explained, or not by all methods.
        written: Whether there are results.
        lines: Errors of photos without any results.
        results: The photos and the methods' results for them, if kept.
    """

    failed: set[str] = field(default_factory=set)
    written: bool = False
    lines: list[str] = field(default_factory=list)
    results: list[tuple[Subject, list[Part]]] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)

    def fail(self, event: Failed) -> str:
        """Print one line about an error of photos, and return it; an error of all photos is printed once."""
        about = f"{event.method}: " if event.method else ""
        line = f"{about}{messages.described(event.error)}"
        if line not in self._said:
            terminal.note(f"error: {line}")
        self._said.add(line)
        self.lines += [] if event.method else [line]
        self.failed.update(photo.source for photo in event.photos)
        return line


def run(
    request: Request,
    photos: Sequence[Photo],
    place: Callable[[Photo], Path],
    sources: outputs.Sources,
    progress: Progress,
    outcome: Outcome,
    *,
    extras: Extras,
    several: bool,
    keep: bool = False,
) -> None:
    """Explain photos and write the results.

    Args:
        request: What to do.
        photos: At least one.
        place: The folder for the results of a photo.
        sources: What must not be changed.
        progress: The progress bar.
        outcome: What was written and what failed, also when the run is interrupted.
        extras: Optional files to write.
        several: Print one line per photo.
        keep: Keep the results in memory.
    """
    writers: list[Writer] = []
    for event in explain(request, photos, progress):
        match event:
            case Failed():
                line = outcome.fail(event)
                for writer in writers if event.method else ():
                    writer.subject.facts.setdefault("failed", {})[event.method] = line
            case Noted(line):
                terminal.note(line)
            case Seen(subjects):
                writers = [Writer(place(one.photo), one, sources, extras) for one in subjects]
                if keep:
                    outcome.results += [(writer.subject, writer.parts) for writer in writers]
                for one in subjects:
                    _print_classes(one, request.net.name, one_line=several)
            case Said(method, parts, seconds):
                for writer, part in zip(writers, parts, strict=True):
                    writer.add(part)
                    outcome.written = True
                if not several:
                    picture = writers[0].folder / f"{method.name}.png"
                    terminal.say(f"{method.name:<24}{seconds:7.1f} s   {picture}")
            case Finished():
                for writer in writers:
                    writer.finish()


def _print_classes(subject: Subject, name: str, *, one_line: bool) -> None:
    source, top = subject.photo.source, subject.facts["top"]
    # Networks without classes have none; the explained target is shown instead.
    numbers = [] if top else [(item["label"], item["value"]) for item in subject.named]
    if one_line:
        listed = ", ".join(
            [f"{item['label']} {item['probability']:.0%}" for item in top]
            + [f"{label} {value:.4g}" for label, value in numbers]
        )
        terminal.say(f"{source}: {listed}")
        return
    terminal.say(f"{source} as {name} sees it:")
    for item in top:
        terminal.say(f"  {item['probability']:6.1%}  {item['label']} ({item['index']})")
    for label, value in numbers:
        terminal.say(f"  {label} {value:.4g}")
