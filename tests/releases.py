"""The releases of frameworks that the extras allow, from the user's package index.

python -m tests.releases resolve EXTRA…    see that each extra can be installed by itself
python -m tests.releases oldest EXTRA…     run the frameworks' tests with the oldest releases
python -m tests.releases newest EXTRA…     the same with the newest, if others than the pinned ones
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "releases"
PINS = ROOT / "constraints-integrations.txt"
UV = Path(sys.executable).parent / "uv"
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}


def compiled(which: str, extras: list[str], *more: str) -> str:
    """What pip would install, as requirements."""
    done = subprocess.run(  # noqa: S603  our own command
        [
            *(UV, "--no-config", "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
            *("--python", sys.executable, "--resolution", RESOLUTIONS[which]),
            *(word for extra in extras for word in ("--extra", extra)),
            *(*more, "pyproject.toml"),
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"the {which} releases of {', '.join(extras)}: {done.stderr}")
    return done.stdout


def releases(requirements: str) -> set[tuple[str, str]]:
    """Names and versions; of a package there may be several, each for some Pythons."""
    return set(re.findall(r"(?m)^([\w.-]+)==([^\s;\\]+)", requirements))


def resolve(extras: list[str]) -> None:
    names = {
        extra: re.search(
            rf"(?m)^{extra} = \[\n    \"([\w.-]+)", (ROOT / "pyproject.toml").read_text()
        )
        for extra in extras
    }
    for extra, name in names.items():
        assert name is not None, extra
        found = [dict(releases(compiled(which, [extra])))[name[1]] for which in RESOLUTIONS]
        print(f"{name[1]}: {' to '.join(found)}")  # noqa: T201


def run(which: str, extras: list[str]) -> None:
    requirements = compiled(which, extras, "--group", "integrations")
    other = sorted(releases(requirements) - releases(PINS.read_text()))
    if which == "newest" and not other:
        print("the newest releases are the pinned ones")  # noqa: T201
        return
    print("other releases than those pinned:", other)  # noqa: T201
    FOLDER.mkdir(parents=True, exist_ok=True)
    file, environment = FOLDER / f"{which}.txt", FOLDER / which
    file.write_text(requirements)
    python = environment / "bin" / "python"
    for command in (
        [UV, "venv", "--quiet", "--clear", "--python", sys.executable, environment],
        [UV, "pip", "install", "--quiet", "--python", python, "-r", file],
        [UV, "pip", "install", "--quiet", "--python", python, "--no-deps", "-e", "."],
        [
            *(python, "-m", "pytest", "-c", "tests/integrations/pytest.ini", "--rootdir", "."),
            *("-n", "auto", "--dist", "worksteal", "-q", "tests/integrations"),
        ],
    ):
        if subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603  our own
            sys.exit(f"with the {which} releases: {' '.join(map(str, command[:4]))} … failed")


if __name__ == "__main__":
    if sys.argv[1] == "resolve":
        resolve(sys.argv[2:])
    else:
        run(sys.argv[1], sys.argv[2:])
