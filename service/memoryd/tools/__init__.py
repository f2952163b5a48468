"""The tools' configuration: settings, overrides at run time, and secrets."""
