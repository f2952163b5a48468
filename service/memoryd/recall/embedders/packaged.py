"""Files that other packages ship, found without importing those packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from memoryd.recall.embedders.embedder import EmbedderUnavailable


def packaged_file(package: str, path: str, *, extra: str) -> Path:
    """Where `package` has its file `path`.

    Raises `EmbedderUnavailable`, naming the extra that brings the package.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, path)
        if file.is_file():
            return file
    raise EmbedderUnavailable(
        f"{package} with its file {path} is not installed; install memoryd[{extra}]."
    )
