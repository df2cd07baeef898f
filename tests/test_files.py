"""Files that are there whole or not at all, and what killed processes leave behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jaxai import _files


def hidden(folder):
    return [path.name for path in Path(folder).iterdir() if path.name.startswith(".")]


def test_a_file_is_there_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a" / "b" / "x"
    with _files.file(path) as new:
        new.write_bytes(b"half")
        assert not path.exists() and new.parent == path.parent
    assert path.read_bytes() == b"half" and hidden(path.parent) == []
    with pytest.raises(ZeroDivisionError), _files.file(path) as new:
        new.write_bytes(b"other")
        raise ZeroDivisionError
    assert path.read_bytes() == b"half" and hidden(path.parent) == []
    _files.write(path, [b"who", memoryview(b"le")])
    assert path.read_bytes() == b"whole"


def test_folders_that_were_made_for_nothing_go_again(tmp_path):
    with pytest.raises(KeyboardInterrupt), _files.file(tmp_path / "a" / "b" / "x"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_usual_rights(tmp_path):
    (tmp_path / "usual").touch()
    _files.write(tmp_path / "x", [b"1"])
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_names_as_long_as_names_can_be(tmp_path):
    _files.write(tmp_path / ("n" * 255), [b"1"])
    with _files.folder(tmp_path / ("m" * 255)) as new:
        (new / ("o" * 255)).touch()
    assert {path.name for path in tmp_path.iterdir()} == {"n" * 255, "m" * 255}


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(OSError, match="is not a regular file"), _files.file(path):
            pass
    (tmp_path / "x").touch()
    with (
        pytest.raises(NotADirectoryError, match="x is a file; expected a folder"),
        _files.file(tmp_path / "x/y"),
    ):
        pass
    with (
        pytest.raises(NotADirectoryError, match="x is a file; expected a folder"),
        _files.folder(tmp_path / "x"),
    ):
        pass


def test_a_folder_is_there_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a" / "b"
    with _files.folder(path) as new:
        (new / "x").write_bytes(b"1")
        assert not path.exists()
    with _files.folder(path) as new:
        (new / "y").write_bytes(b"2")
        assert [p.name for p in path.iterdir() if p != new] == ["x"]
    assert sorted(p.name for p in path.iterdir()) == ["x", "y"]
    with pytest.raises(ZeroDivisionError), _files.folder(path) as new:
        (new / "x").write_bytes(b"3")
        raise ZeroDivisionError
    assert (path / "x").read_bytes() == b"1" and sorted(p.name for p in path.iterdir()) == ["x", "y"]


def test_a_folder_that_another_process_made_meanwhile(tmp_path):
    path = tmp_path / "a"
    with _files.folder(path) as new:
        (new / "x").write_bytes(b"1")
        path.mkdir()
        (path / "y").write_bytes(b"2")
    assert sorted(p.name for p in path.iterdir()) == ["x", "y"] and hidden(tmp_path) == []


WAITING = """
import sys, time
from pathlib import Path
from jaxai import _files
place = Path(sys.argv[1])
with _files.temporary(place) as file, _files.temporary(place, directory=True) as folder:
    file.write_bytes(b"half")
    (folder / "x").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    others = [".jaxai-x.part", ".other.part", "jaxai-00000000.part"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".jaxai-0000000a.part").symlink_to(tmp_path / "jaxai-00000000.part")
    os.mkfifo(tmp_path / ".jaxai-0000000b.part")
    before = {path.name for path in tmp_path.iterdir()}
    process = subprocess.Popen([sys.executable, "-c", WAITING, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    _files.sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(before) + 2, "what is in use stays"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(list(tmp_path.iterdir())) == len(before) + 2
    _files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before
    _files.sweep(tmp_path / "nowhere")


def test_without_locks_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "fcntl", None)
    for name in ("0000000a", "0000000b"):
        (tmp_path / f".jaxai-{name}.part").touch()
    day_ago = time.time() - 25 * 3600
    os.utime(tmp_path / ".jaxai-0000000a.part", (day_ago, day_ago))
    with _files.file(tmp_path / "x"):
        _files.sweep(tmp_path)
        assert len(hidden(tmp_path)) == 2
    assert hidden(tmp_path) == [".jaxai-0000000b.part"]


def test_sweeping_while_others_write_loses_nothing(tmp_path):
    done = threading.Event()

    def sweeps():
        while not done.is_set():
            _files.sweep(tmp_path)

    sweeper = threading.Thread(target=sweeps)
    sweeper.start()
    try:
        for index in range(200):
            _files.write(tmp_path / str(index), [b"1"])
    finally:
        done.set()
        sweeper.join()
    assert {path.name for path in tmp_path.iterdir()} == set(map(str, range(200)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Katze für.png", "Katze für.png"),
        ("b\x1b[31mRED\x1b]0;x\x07\n", "b?[31mRED?]0;x??"),
        ("\u202egnp.exe\x9b\ud800", "?gnp.exe??"),
        ("x" * 81, "x" * 77 + "..."),
        ("x" * 80, "x" * 80),
    ],
)
def test_words_that_are_shown(text, expected):
    assert _files.shown(text) == expected
