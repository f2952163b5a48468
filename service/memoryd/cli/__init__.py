"""The command line. `app` names the commands; each loads only the modules that it needs."""
