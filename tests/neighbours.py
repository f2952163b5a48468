"""The client beside other packages in their current releases; from the user's package index.

python -m tests.neighbours resolve     what pip would choose
python -m tests.neighbours install     install that, and call a server with both imported
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "neighbours"
UV = Path(sys.executable).parent / "uv"
CLIENT = f"memoryd @ {ROOT.as_uri()}"

MODULE_OF = {
    "apache-beam": "apache_beam",
    "autogen-core": "autogen_core",
    "dbt-core": "dbt.cli.main",
    "google-adk": "google.adk",
    "langgraph": "langgraph.graph",
    "mem0ai": "mem0",
    "openai-agents": "agents",
    "protovalidate": "protovalidate",
}

OLDEST = "oldest"
"""Not a package: the client alone, with the oldest releases that it asks for."""

LEFT_OUT = "dbt-core-experimental-parser; python_version < '3'"
"""Its build fetches a binary that no package index has."""

PROGRAM = """
import asyncio, importlib, sys

address, *modules = sys.argv[1:]
for module in modules:
    importlib.import_module(module)

from memoryd.client import (
    ConversationClient, DocumentClient, MemoryClient, Put, answers, open_channel, sync
)
from memoryd.client.answering import Answer


async def main():
    async with open_channel(address) as channel:
        memories = MemoryClient(channel=channel)
        fact = "I prefer e-mail over the phone."
        stored = await memories.store("ada", fact, metadata={"said": [1, None]}, tags=["mail"])
        print("stored:", f"STORE_OUTCOME_{stored.outcome.upper()}")
        document = await DocumentClient(channel=channel).put("ada", Put("k", text="a note"))
        assert document.revision, document
        said = await ConversationClient(channel=channel).append("ada", "c", user="Hello")
        assert said.messages[0].role, said
        for result in (await memories.retrieve("ada", "by e-mail?")).results:
            print("remembered:", result.memory.content)
        with sync.MemoryClient(address) as others:
            assert others.get("ada", stored.memory.memory_id).content == fact, stored
    for kind in vars(answers).values():
        if isinstance(kind, type) and issubclass(kind, Answer) and "_message" in vars(kind):
            assert kind.from_proto(kind().proto) == kind(), kind


asyncio.run(main())
"""
"""Prints what `examples/check.py` expects of an example."""


def compile_requirements(*requirements: str) -> dict[str, str]:
    """Give the version of each package that the requirements bring."""
    options = ("--quiet", "--no-header", "--no-annotate", "--python", sys.executable)
    done = subprocess.run(  # noqa: S603  our own command
        [UV, "pip", "compile", *options, "-"],
        input="\n".join(requirements),
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' and '.join(requirements)}: {done.stderr}")
    return dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", done.stdout))


def resolve() -> list[str]:
    problems = []
    for name in MODULE_OF:
        alone, beside = compile_requirements(name), compile_requirements(name, CLIENT)
        held = {each: beside[each] for each in ("protobuf", "grpcio")}
        print(name, beside[name], held)  # noqa: T201
        if alone[name] != beside[name]:
            problems.append(f"{name} is {beside[name]} beside the client, {alone[name]} without")
    return problems


def install() -> list[str]:
    return [problem for name in (OLDEST, *MODULE_OF) if (problem := call_beside(name))]


def call_beside(name: str) -> str | None:
    """Call a server from a process that has imported the package; say what is wrong."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    left_out = FOLDER / "left-out.txt"
    FOLDER.mkdir(parents=True, exist_ok=True)
    left_out.write_text(LEFT_OUT)
    modules = [MODULE_OF[name]] if name in MODULE_OF else []
    which = ["--resolution", "lowest-direct"] if name == OLDEST else [name]
    options = ("--quiet", "--python", python, "--overrides", left_out)
    # Of an earlier build, which would be installed as well.
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    for command in (
        [UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder],
        [UV, "pip", "install", *options, "--refresh-package", "memoryd", CLIENT, *which],
        [sys.executable, "examples/check.py", python, "-c", PROGRAM, "{address}", *modules],
    ):
        if subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603  our own
            return f"{name}: {command[1]} failed"
    shutil.rmtree(folder)
    return None


def main() -> None:
    problems = {"resolve": resolve, "install": install}[sys.argv[1]]()
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
