"""How much memory the processes that we started take at most: the kernel of a notebook and its data workers."""

from __future__ import annotations

import threading
import time

import psutil

EVERY = 0.2  # seconds between two looks
YOUNG = 2  # seconds in which a forked process is thought to be about to start another program


class Peak:
    """`with Peak() as peak: ...`, then `peak.bytes`: the most memory that this process's descendants took together.

    Resident memory, looked at five times a second: what was there for a shorter time may have been missed. Pages that
    two of them share count twice.
    """

    def __init__(self):
        self.bytes, self._ended = 0, threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._watcher.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.bytes = max(self.bytes, sum(map(_resident, psutil.Process().children(recursive=True))))
            self._ended.wait(EVERY)


def _resident(process: psutil.Process) -> int:
    try:
        return 0 if _is_being_started(process) else process.memory_info().rss
    except psutil.Error:  # it has just ended
        return 0


def _is_being_started(process: psutil.Process) -> bool:
    """Forked, but not yet the program that it will be: until then, its memory is its parent's and would count twice."""
    young = time.time() - process.create_time() < YOUNG
    return young and process.cmdline() == psutil.Process(process.ppid()).cmdline()
