"""Whether calls are traced, as the variables of OpenTelemetry say.

Nothing of its libraries is loaded, and nothing is sent, unless they ask for it:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace.export import SpanExporter

    from memoryd.telemetry.otel import Tracing

_EXPORTER = "OTEL_TRACES_EXPORTER"
_OTLP, _CONSOLE, _NONE = "otlp", "console", "none"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def are_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether the variables say where traces go. Raises ValueError where they say it wrongly."""

    def given(name: str) -> str:
        return environ.get(name, "").strip()

    if given("OTEL_SDK_DISABLED").lower() == "true":
        return False
    exporter = _exporter(environ)
    if exporter not in {"", _OTLP, _CONSOLE, _NONE}:
        raise ValueError(f"{_EXPORTER}: {_OTLP}, {_CONSOLE} or {_NONE}, not {exporter!r}")
    # Without a word, the specification would have traces sent to this machine.
    return exporter in {_OTLP, _CONSOLE} or (not exporter and any(map(given, _ENDPOINTS)))


def _exporter(environ: Mapping[str, str]) -> str:
    return environ.get(_EXPORTER, "").strip().lower()


def exporter_of(environ: Mapping[str, str]) -> SpanExporter | None:
    """Make what sends or prints spans; None: the variables do not ask for traces.

    Raises ValueError where they ask for what there is not.
    """
    if not are_asked_for(environ):
        return None
    try:
        from memoryd.telemetry import otel  # noqa: PLC0415  as the module says

        return otel.exporter_of(environ, on_console=_exporter(environ) == _CONSOLE)
    except ImportError as error:
        raise ValueError(
            "OTEL_… variables ask for traces, and OpenTelemetry is not installed: install"
            f" memoryd[telemetry], or set {_EXPORTER}=none"
        ) from error


def tracing_of(environ: Mapping[str, str]) -> Tracing | None:
    """Make what traces calls; None: the variables of this process do not ask for it.

    Raises ValueError where they ask for what there is not.
    """
    exporter = exporter_of(environ)
    if exporter is None:
        return None
    from memoryd.telemetry import otel  # noqa: PLC0415  as the module says

    return otel.tracing_with(environ, exporter)
