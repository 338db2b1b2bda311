"""Whatever the machine does to a run, it ends with one line at most and an exit code that is no fault of ours."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconvene.driver.cli.command_line import main
from reconvene.driver.cli.ending import explained
from reconvene.driver.verbs import targets
from reconvene.frontend.base.cache_folder import cache_folder
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.files import write_text


def from_a_library(reason: BaseException) -> Exception:
    """What libraries make of an error in code that they call back."""
    error = RuntimeError("the callback failed")
    error.__cause__ = reason
    return error


ENDINGS: list[tuple[Exception, int, str]] = [
    (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: '/x': Permission denied; choose files"),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device; choose files"),
    (FileNotFoundError(errno.ENOENT, "No such file", b"n\xff"), 2, "error: 'n\\udcff': No such file"),
    (OSError("odd"), 2, "error: odd; choose files"),
    (MemoryError("Unable to allocate 9 TiB"), 2, "error: there is not enough memory here: Unable to allocate 9 TiB"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"), 2, "error: there is not enough memory here"),
    (from_a_library(KeyboardInterrupt()), 130, "error: interrupted"),
]


@pytest.mark.parametrize(("error", "code", "start"), ENDINGS, ids=lambda value: type(value).__name__)
def test_what_the_machine_lacks_is_one_line(
    error: Exception, code: int, start: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(targets, "run", failing)
    assert main(["targets"]) == code
    line = capsys.readouterr().err
    assert line.startswith(start) and line.count("\n") == 1


def test_an_error_that_came_from_itself_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("round")
    error.__cause__, error.__context__ = None, error
    assert explained(error) == 70
    assert "RuntimeError: round" in capsys.readouterr().err


HELP = f"{sys.executable} -m reconvene --help"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (f"{HELP} | head -0; exit ${{PIPESTATUS[0]}}", 0, ""),
        (f"{sys.executable} -m reconvene targets | head -0; exit ${{PIPESTATUS[0]}}", 0, ""),
        (f"{HELP} >/dev/full", 2, "error: cannot write to stdout: No space left on device\n"),
        (f"{sys.executable} -m reconvene serve --help >/dev/full", 2, "error: cannot write to stdout: No space left"),
        (f"{HELP} >&-", 0, ""),
        (f"{HELP} <&- >&- 2>&-", 0, ""),
        (f"{HELP} nothing 2>/dev/full", 0, ""),
        (f"{sys.executable} -m reconvene nothing 2>/dev/full", 2, ""),
        (f"{sys.executable} -m reconvene nothing 2>&-", 2, ""),
        (f"mkdir gone; cd gone; rmdir ../gone; {HELP}", 2, "the current folder is gone"),
        (f"LC_ALL=C PYTHONIOENCODING=ascii {HELP} >/dev/null", 0, ""),
    ],
)
def test_streams_that_are_full_closed_or_not_read(line: str, code: int, said: str, tmp_path: Path) -> None:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60)
    assert done.returncode == code
    assert said in done.stderr and "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert done.stderr.count("\n") == bool(said)


def _heeding() -> None:
    """Whoever runs the tests in the background may have them ignore Ctrl-C, which a program inherits."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "error: interrupted"), (signal.SIGTERM, 143, "error: ended by SIGTERM")],
)
def test_signals_while_modules_are_imported_end_the_run_at_once(number: int, code: int, line: str) -> None:
    program = (
        "import sys, time, os\n"
        "from reconvene import __main__ as program\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            os.write(1, b'.')\n"
        "            try: time.sleep(30)\n"
        "            except BaseException: raise ImportError('turned into another error')\n"
        "sys.meta_path.insert(0, Slow())\n"
        "program.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heeding,
    )
    assert process.stdout is not None and process.stdout.read(1) == "."
    process.send_signal(number)
    assert process.communicate(timeout=20)[1] == f"{line}\n"
    assert process.returncode == code


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under nohup, and for the jobs of a script in the background."""
    line = f"trap '' INT; {HELP} >/dev/null & sleep 0.05; kill -INT $!; wait $!"
    assert subprocess.run(["bash", "-c", line], check=False, cwd=tmp_path, timeout=60).returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_while_it_works_leave_no_litter(number: int, code: int, tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from reconvene import __main__ as program\n"
        "from reconvene.driver.cli import command_line, terminal\n"
        "from reconvene.frontend.base.files import replacing\n"
        "def work():\n"
        "    with replacing('made') as made:\n"
        "        made.write_text('half'); print('.', flush=True); time.sleep(30)\n"
        "command_line.main = lambda _: command_line.app.registered_commands and run()\n"
        "def run():\n"
        "    import sys\n"
        "    try: terminal.answer(False, work)\n"
        "    except KeyboardInterrupt as error: return command_line.failed('interrupted', 130)\n"
        "program.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=_heeding
    )
    assert process.stderr is not None and process.stderr.read(1) == "."
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_the_cache_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RECONVENE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(InputError, match="no home folder for the cache; name a folder with RECONVENE_CACHE"):
        cache_folder()


def test_names_that_are_no_text_can_be_written_about(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", f"<p>{os.fsdecode(b'n' + bytes([255]))}</p>")
    assert (tmp_path / "page.html").read_text() == "<p>n\\udcff</p>"


def test_no_room_for_a_file_is_one_line(tmp_path: Path) -> None:
    program = (
        "import resource\n"
        "from reconvene.frontend.base.files import write_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_text('page', 'x' * 9999)\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "cannot write 'page': File too large\n"
    assert list(tmp_path.iterdir()) == []
