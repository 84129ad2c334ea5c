"""The one progress display, owned by `fit`: sweeps done, time left, objective and validation score."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from hardstep.report import Record

__all__ = ["Progress"]


class Progress:
    """A rich progress bar over sweeps that moves within a sweep too; silent unless `shown`."""

    def __init__(self, sweeps: int, *, shown: bool) -> None:
        self._bar = Bar(
            TextColumn("sweep {task.fields[done]}/{task.total}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            disable=not shown,
        )
        self._task = self._bar.add_task("", total=sweeps, done=0)
        self._done = 0

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def tick(self, share: float) -> None:
        """Show that this share of the present sweep is done."""
        if self._bar.disable:
            return
        self._bar.update(self._task, completed=self._done + min(share, 0.999))

    def show(self, record: Record) -> None:
        """Show a finished sweep."""
        self._done = record.sweep + 1
        score = "" if record.score is None else f", validation {record.score:.4f}"
        text = f"objective {record.objective:.4g}{score}"
        self._bar.update(self._task, completed=self._done, done=self._done, description=text)
