"""Private memory of a process, now and at its peak."""

from __future__ import annotations

import threading

import psutil

__all__ = ["MIB", "Meter", "private"]

MIB = 1 << 20


class Meter:
    """Samples the private memory of a process every few milliseconds."""

    def __init__(self, process: psutil.Process | None = None) -> None:
        self._process = process or psutil.Process()
        self.base = private(self._process)
        self.peak = self.base
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def now(self) -> float:
        return (private(self._process) - self.base) / MIB

    def stop(self) -> float:
        """The most there was, in MiB over the base."""
        self._stop.set()
        self._thread.join()
        return (self.peak - self.base) / MIB

    def _run(self) -> None:
        while not self._stop.wait(0.004):
            self.peak = max(self.peak, private(self._process))


def private(process: psutil.Process) -> int:
    return int(process.memory_full_info().uss)
