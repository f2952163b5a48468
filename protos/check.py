"""Check that the stubs under service/ are what `make generate` makes of the protos as they are now.

python protos/check.py
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
SERVICE = PROTOS.parent / "service"


def stubs(folder: Path) -> set[Path]:
    """Find generated modules and type stubs by their names, which nothing else may have."""
    return {
        path.relative_to(folder)
        for pattern in ("*_pb2.py*", "*_pb2_grpc.py*")
        for path in folder.rglob(pattern)
        if path.suffix in {".py", ".pyi"}
    }


def drift(fresh: Path) -> list[str]:
    """Say of every file that differs from the fresh ones how it does."""
    wanted, found = stubs(fresh), stubs(SERVICE)
    changed = {
        stub
        for stub in wanted & found
        if not filecmp.cmp(fresh / stub, SERVICE / stub, shallow=False)
    }
    return sorted(
        [f"service/{stub} is out of date" for stub in changed]
        + [f"service/{stub} is missing" for stub in wanted - found]
        + [f"service/{stub} has no proto any more: delete it" for stub in found - wanted]
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, PROTOS / "generate.py", "stubs", folder]
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
        if run.returncode:
            sys.exit(run.stderr)
        problems = drift(Path(folder))
    if problems:
        sys.exit("\n".join([*problems, "The stubs do not fit the protos: `make generate`"]))


if __name__ == "__main__":
    main()
