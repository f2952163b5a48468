"""What is measured: counts and times for Prometheus, spans for OpenTelemetry.

Other rooms count and time with what is here, which needs neither library; these are loaded by the
first scrape, and where traces are asked for.
"""
