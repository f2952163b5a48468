"""`python -m memoryd`, and where the script `memoryd` starts."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` searches the working folder for modules first. A file there with the name of a
    # module that this program imports must not run instead of it.
    sys.path.pop(0)


def main() -> None:
    try:
        from memoryd.cli import app  # noqa: PLC0415  where what it needs may be missing

        app.main()
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] == "memoryd":
            raise
        sys.exit(
            f"memoryd: the commands need {missing.name}, which the client alone is installed"
            " without: pip install 'memoryd[server]', with the extra `semantic` to find memories by"
            " their meaning too"
        )


if __name__ == "__main__":
    main()
