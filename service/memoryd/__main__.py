"""`python -m memoryd`, and where the script `memoryd` starts."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` searches the working folder for modules first. A file there with the name of a
    # module that this program imports must not run instead of it.
    sys.path.pop(0)

from memoryd.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
