"""Templates, and how they show times and numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"

_SPANS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("min", 60))


class Renderer:
    """Renders templates. Whatever they are given is text: they escape it."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "ago": self._when,
            "number": number,
            "decimal": decimal,
        }
        self._environment.globals["static"] = _versions()

    def page(self, template: str, values: dict[str, Any]) -> str:
        return self._environment.get_template(template).render(values)

    def _when(self, time: datetime | None) -> Markup:
        """How far it is from now, with the exact time for who points at it."""
        if time is None:
            return Markup('<span class="quiet">never</span>')
        exact = time.astimezone(UTC)
        return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
            exact.isoformat(), f"{exact:%Y-%m-%d %H:%M:%S}", relative(time, self._clock())
        )


def relative(time: datetime, now: datetime) -> str:
    """`3 min ago`, `in 2 days`, `just now`."""
    seconds = (time - now).total_seconds()
    if seconds > 0:  # what lasts a day does so for its first minute, too
        seconds += 59
    for name, length in _SPANS:
        count = int(abs(seconds) // length)
        if count:
            text = f"{count} {name}{'s' if count > 1 and name != 'min' else ''}"
            return f"in {text}" if seconds > 0 else f"{text} ago"
    return "just now"


def number(count: int) -> str:
    """With commas between thousands."""
    return f"{count:,}"


def decimal(value: float, places: int = 2) -> str:
    return f"{value:.{places}f}"


def _versions() -> dict[str, str]:
    """The addresses of static files by their names; an address changes with its file."""
    return {
        (name := file.relative_to(STATIC).as_posix()): (
            f"/static/{name}?{sha256(file.read_bytes()).hexdigest()[:12]}"
        )
        for file in STATIC.rglob("*")
        if file.suffix in {".css", ".js", ".svg"}
    }
