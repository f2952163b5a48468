"""Whether calls are traced, as the variables of OpenTelemetry say.

Nothing of its libraries is loaded, and nothing is sent, unless they ask for it:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memoryd.telemetry.otel import Tracing

_OTLP, _NONE = "otlp", "none"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def are_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether the variables say where traces go. Raises ValueError where they say it wrongly."""

    def given(name: str) -> str:
        return environ.get(name, "").strip()

    if given("OTEL_SDK_DISABLED").lower() == "true":
        return False
    exporter = given("OTEL_TRACES_EXPORTER").lower()
    if exporter not in {"", _OTLP, _NONE}:
        raise ValueError(f"OTEL_TRACES_EXPORTER: {_OTLP} or {_NONE}, not {exporter!r}")
    # Without a word, the specification would have traces sent to this machine.
    return exporter == _OTLP or (not exporter and any(map(given, _ENDPOINTS)))


def tracing_of(environ: Mapping[str, str]) -> Tracing | None:
    """Make what traces calls; None: the variables of this process do not ask for it.

    Raises ValueError where they ask for what there is not.
    """
    if not are_asked_for(environ):
        return None
    try:
        from memoryd.telemetry import otel  # noqa: PLC0415  as the module says

        exporter = otel.exporter_of(environ)
    except ImportError as error:
        raise ValueError(
            "OTEL_… variables ask for traces, and OpenTelemetry is not installed: install"
            " memoryd[telemetry], or set OTEL_TRACES_EXPORTER=none"
        ) from error
    return otel.tracing_with(environ, exporter)
