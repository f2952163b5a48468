"""The client of `clients/typescript` in Node: what it does beyond calling."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from contextlib import asynccontextmanager

from memoryd.access.api_key import new_key
from memoryd.v1 import memory_pb2 as pb

from .programs import BESIDE, ROOT, STOCK, built, counting, tool

PACKAGE = ROOT / "clients" / "typescript"


@asynccontextmanager
async def node(script: str, *arguments: str):
    """A program in Node that can import the client; it is killed at the end."""
    built("page.js")
    program = await asyncio.create_subprocess_exec(
        tool("node"),
        *("--input-type=module", "--eval", script, "--", *arguments),
        cwd=STOCK / "javascript",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            yield program
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()


async def printed(script: str, *arguments: str) -> list[str]:
    async with node(script, *arguments) as program:
        output, _ = await program.communicate()
    assert program.returncode == 0
    return output.decode().splitlines()


async def test_the_program_of_its_page_prints_what_it_says(running):
    page = (PACKAGE / "README.md").read_text()
    (program,) = re.findall(r"```js\n(.*?)```", page, re.DOTALL)
    (line,) = re.findall(r"^It prints (.*)\.$", page, re.MULTILINE)
    http = running.server.http_address
    lines = await printed(program.replace("localhost:50052", http))
    assert lines == re.findall(r"`(.*?)`", line)


WATCH = """
import { connect } from "memoryd/node";
const [url] = process.argv.slice(1);
for await (const { memory } of connect(url).watchMemories({ sessionId: "s" })) {
    console.log(memory.content);
}
"""


async def test_a_watch_goes_on_with_another_server(serve):
    first = await serve()
    with counting(first.server.http_address) as way:
        async with node(WATCH, f"http://{way.address}") as watching:

            async def seen() -> str:
                return (await watching.stdout.readline()).decode().strip()

            for content in ("fact 0", "fact 1"):
                request = pb.StoreMemoryRequest(session_id="s", content=content)
                await first.memory.StoreMemory(request)
                assert await seen() == content
            await first.server.stop()
            second = await serve()
            request = pb.StoreMemoryRequest(session_id="s", content="fact 2")
            await second.memory.StoreMemory(request)
            way.target = second.server.http_address
            # What came before does not come again.
            assert await seen() == "fact 2"


async def test_a_watch_that_reaches_nobody_says_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    script = WATCH.replace("for await", "try { for await") + (
        "} catch ({ name, code }) { console.log(name, code) }"
    )
    unavailable = 14
    assert await printed(script, f"http://127.0.0.1:{port}") == [f"MemorydError {unavailable}"]


async def test_a_watch_ends_silently_where_its_caller_ends_it(running):
    script = """
        import { connect } from "memoryd/node";
        const [url] = process.argv.slice(1);
        const { memories, watchMemories } = connect(url);
        const ending = new AbortController();
        await memories.storeMemory({ sessionId: "s", content: "fact" });
        const { signal } = ending;
        for await (const { memory } of watchMemories({ sessionId: "s" }, { signal })) {
            console.log(memory.content);
            ending.abort();
        }
        console.log("over");
        """
    assert await printed(script, f"http://{running.server.http_address}") == ["fact", "over"]


async def test_a_call_has_a_deadline_of_its_client():
    script = """
        import { Code, connect } from "memoryd/node";
        const [url] = process.argv.slice(1);
        const { code } = await connect(url, { timeoutMs: 200 })
            .sessions.getSession({ sessionId: "s" }).catch((error) => error);
        console.log(Code[code]);
        process.exit();
        """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert await printed(script, url) == ["DeadlineExceeded"]


async def test_it_shows_its_key(serve):
    key = new_key().text
    running = await serve(
        MEMORYD_AUTH="required", MEMORYD_BOOTSTRAP_KEY="env://BOOTSTRAP", BOOTSTRAP=key
    )
    script = """
        import { connect } from "memoryd/node";
        const [url, apiKey] = process.argv.slice(1);
        console.log((await connect(url, { apiKey }).access.whoAmI({})).scopes.length > 0);
        console.log(await connect(url).access.whoAmI({}).catch(({ reason }) => reason));
        try {
            connect("http://memoryd.example", { apiKey });
        } catch ({ message }) {
            console.log(message.includes(apiKey), message.includes("use https"));
        }
        connect("https://memoryd.example", { apiKey });
        connect("http://memoryd.example", { apiKey, allowPlaintextCredentials: true });
        """
    shown, refused, said = await printed(script, f"http://{running.server.http_address}", key)
    assert shown == "true"
    assert "CREDENTIAL" in refused
    assert said == "false true"


async def test_what_is_packed_is_what_is_used():
    built("page.js")
    program = await asyncio.create_subprocess_exec(
        tool("npm"),
        *("pack", "--dry-run", "--json", "--silent"),
        cwd=PACKAGE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PATH": f"{BESIDE}:{os.environ['PATH']}"},
    )
    output, _ = await program.communicate()
    (packed,) = json.loads(output)
    files = {one["path"] for one in packed["files"]}
    assert {"LICENSE", "README.md", "package.json"} <= files
    for name in (".", "./node", "./web", "./v1/memory", "./google/rpc/status"):
        assert exported(name) <= files
    rest = files - {"LICENSE", "README.md", "package.json"}
    assert all(name.startswith("dist/") and name.endswith((".js", ".d.ts")) for name in rest)


def exported(name: str) -> set[str]:
    """The files that an import of the package leads to: code and types."""
    exports = json.loads((PACKAGE / "package.json").read_text())["exports"]
    folder, _, last = name.rpartition("/")
    pattern = name if name in exports else f"{folder}/*"
    return {path.removeprefix("./").replace("*", last) for path in exports[pattern].values()}


def test_the_lock_file_has_hashes_and_no_address():
    text = (ROOT / "clients" / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    of_others = {name: one for name, one in packages.items() if "node_modules/" in name}
    of_others = {name: one for name, one in of_others.items() if not one.get("link")}
    assert of_others
    assert all(one["integrity"].startswith("sha512-") for one in of_others.values())
    assert not [one for one in of_others.values() if "resolved" in one]
