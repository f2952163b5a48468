"""Anthropic's memory tool over memoryd's documents.

    from memoryd.integrations.anthropic import MemorydMemoryTool

    memory = MemorydMemoryTool("localhost:50051", user="ada")
    client.beta.messages.tool_runner(tools=[memory], …).until_done()

It answers as the SDK's own tool on local files does. A file is a document that never expires. The
files of a user are one session of memoryd, so that erasing it removes all of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from anthropic.lib.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool, ToolError

from memoryd.client import (
    AlreadyExists,
    DocumentClient,
    EtagMismatch,
    InvalidArgument,
    NotFound,
    Put,
)
from memoryd.client.background import Closing, background
from memoryd.client.connection import ClosedOnExit
from memoryd.integrations.names import prefix_of, session_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from anthropic.types.beta import (
        BetaCacheControlEphemeralParam,
        BetaMemoryTool20250818CreateCommand,
        BetaMemoryTool20250818DeleteCommand,
        BetaMemoryTool20250818InsertCommand,
        BetaMemoryTool20250818RenameCommand,
        BetaMemoryTool20250818StrReplaceCommand,
        BetaMemoryTool20250818ViewCommand,
    )

    from memoryd.client import Document

ROOT = "memories"

DIRECTORY = "/"
"""The key of a document that keeps its directory while there are no files in it. No file is so
named."""

DIRECTORY_SIZE = "4K"
"""What a directory takes on most file systems."""

SHOWN_DEPTH = 2

MAX_LINES = 999_999
LINE_NUMBER_WIDTH = 6

MAX_REPEATS = 3
"""How often a change is made again where another was faster."""

BUSY = "Others keep changing the memory at the same time:"


class _Path(NamedTuple):
    """A path that is given, and its names from the root on."""

    given: str
    names: tuple[str, ...]

    @property
    def is_root(self) -> bool:
        return len(self.names) == 1

    @property
    def document(self) -> tuple[tuple[str, ...], str]:
        """Namespace and key, if it is a file."""
        return self.names[:-1], self.names[-1]

    @property
    def parents(self) -> list[tuple[str, ...]]:
        """The directories that it is in, below the root."""
        return [self.names[:length] for length in range(2, len(self.names))]


def _path(given: str) -> _Path:
    """Raises ToolError for what is not below /memories, or says so in a roundabout way."""
    root, *names = given.removeprefix("/").split("/")
    if not given.startswith("/") or root != ROOT:
        raise ToolError(f"Path must start with /memories, got: {given}")
    if names and not names[-1]:
        names.pop()  # a directory, as it is shown
    for name in names:
        decoded = _decoded(name)
        parts = decoded.split("\\")
        if ".." in parts:
            raise ToolError(f"Path {given} would escape /memories directory")
        if not name or "." in parts or "/" in decoded:
            raise ToolError(
                f"Path {given} has an empty name, a . or an encoded /. Give each name once and as"
                " it is, like /memories/notes/travel.md"
            )
    return _Path(given, (ROOT, *names))


def _decoded(name: str) -> str:
    """A name after as many percent-decodings as it takes."""
    while (decoded := unquote(name)) != name:
        name = decoded
    return name


class _Files:
    """The commands of the tool. They run in the one loop of the clients."""

    def __init__(self, client: DocumentClient, session: str) -> None:
        self.client = client
        self._session = session

    async def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        path = _path(command.path)
        file = await self._file(path)
        if file is not None:
            return _shown_lines(path, _text(file), command.view_range)
        below = self.client.list(self._session, path.names, with_bodies=False)
        documents = [document async for document in below]
        if not documents and not path.is_root:
            raise ToolError(f"The path {path.given} does not exist. Please provide a valid path.")
        return _shown_directory(path, documents)

    async def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        path = _path(command.path)
        file = _put(path, command.file_text, if_absent=True)
        for _ in range(MAX_REPEATS + 1):
            if await self._is_directory(path):
                raise ToolError(f"File {path.given} already exists")
            try:
                await self._write([*await self._missing_directories(path), file])
            except AlreadyExists:
                if await self._file(path) is not None:
                    raise ToolError(f"File {path.given} already exists") from None
                continue  # another made one of its directories
            return f"File created successfully at: {path.given}"
        raise ToolError(f"{BUSY} {path.given} was not created. Try again.")

    async def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        def replaced(path: _Path, text: str) -> tuple[str, str]:
            old = command.old_str
            count = text.count(old)
            if not count:
                raise ToolError(
                    f"No replacement was performed, old_str `{old}` did not appear verbatim in"
                    f" {path.given}."
                )
            places = [found.start() for found in re.finditer(f"(?={re.escape(old)})", text)]
            lines = [text.count("\n", 0, place) + 1 for place in places]
            if count > 1:
                raise ToolError(
                    f"No replacement was performed. Multiple occurrences of old_str `{old}` in"
                    f" lines: {', '.join(map(str, lines))}. Please ensure it is unique"
                )
            new = text.replace(old, command.new_str)
            new_lines = new.split("\n")
            shown = slice(max(0, lines[0] - 3), lines[0] + 2)  # two lines around it
            return new, (
                "The memory file has been edited. Here is the snippet showing the change (with line"
                f" numbers):\n{_numbered(new_lines[shown], shown.start + 1)}"
            )

        return await self._edit(_path(command.path), replaced)

    async def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        def inserted(path: _Path, text: str) -> tuple[str, str]:
            lines = text.split("\n")
            if not lines[-1]:
                lines.pop()
            if not 0 <= command.insert_line <= len(lines):
                raise ToolError(
                    f"Invalid `insert_line` parameter: {command.insert_line}. It should be within"
                    f" the range [0, {len(lines)}]."
                )
            lines.insert(command.insert_line, command.insert_text.rstrip("\n"))
            new = "\n".join(lines)
            return new if new.endswith("\n") else new + "\n", (
                f"The file {path.given} has been edited."
            )

        return await self._edit(_path(command.path), inserted)

    async def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        path = _path(command.path)
        if path.is_root:
            raise ToolError("Cannot delete the /memories directory itself")
        namespace, key = path.document
        try:
            await self.client.delete(self._session, key, namespace=namespace)
        except NotFound:
            if not await self.client.delete_all(self._session, path.names, force=True):
                raise ToolError(f"The path {path.given} does not exist") from None
        return f"Successfully deleted {path.given}"

    async def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        old, new = _path(command.old_path), _path(command.new_path)
        if old.is_root:
            raise ToolError("Cannot rename the /memories directory itself")
        if await self._exists(new):
            raise ToolError(f"The destination {new.given} already exists")
        await self._make_directories(new)
        if old.names in new.parents:
            raise ToolError(f"Cannot rename {old.given} to {new.given}, which is in it")
        absent = ToolError(f"The path {old.given} does not exist")
        if old.names == new.names:
            raise absent  # or it would exist as the destination
        try:
            await self._move(old, new)
        except NotFound:
            raise absent from None
        except AlreadyExists:
            raise ToolError(f"The destination {new.given} already exists") from None
        return f"Successfully renamed {old.given} to {new.given}"

    async def clear(self) -> str:
        await self.client.delete_all(self._session, (ROOT,), force=True)
        return "All memory cleared"

    async def _file(self, path: _Path) -> Document | None:
        if path.is_root:
            return None
        namespace, key = path.document
        try:
            return await self.client.get(self._session, key, namespace=namespace)
        except NotFound:
            return None

    async def _is_directory(self, path: _Path) -> bool:
        if path.is_root:
            return True
        found = self.client.namespaces(self._session, prefix=path.names, page_size=1)
        try:
            return await anext(found, None) is not None
        finally:
            await found.aclose()

    async def _exists(self, path: _Path) -> bool:
        return await self._is_directory(path) or await self._file(path) is not None

    async def _edit(self, path: _Path, edited: Callable[[_Path, str], tuple[str, str]]) -> str:
        for _ in range(MAX_REPEATS + 1):
            file = await self._file(path)
            if file is None:
                if await self._is_directory(path):
                    raise ToolError(f"The path {path.given} is not a file.")
                raise ToolError(
                    f"The path {path.given} does not exist. Please provide a valid path."
                )
            text, answer = edited(path, _text(file))
            try:
                await self._write([_put(path, text, etag=file.etag)])
            except EtagMismatch:
                continue
            return answer
        raise ToolError(f"{BUSY} {path.given} was not edited. View it, and try again.")

    async def _missing_directories(self, path: _Path) -> list[Put]:
        """The directories of a path that are not kept yet. Raises ToolError if one is a file."""
        parents = path.parents
        if not parents:
            return []
        files = [(names[:-1], names[-1]) for names in parents]
        kept = [(names, DIRECTORY) for names in parents]
        answer = await self.client.get_many(self._session, [*kept, *files])
        found = [entry.document is not None for entry in answer.entries]
        for names, is_file in zip(parents, found[len(parents) :], strict=True):
            if is_file:
                raise ToolError(f"The path /{'/'.join(names)} is not a directory.")
        return [
            Put(DIRECTORY, names, text="", if_absent=True)
            for names, is_kept in zip(parents, found, strict=False)
            if not is_kept
        ]

    async def _make_directories(self, path: _Path) -> None:
        for _ in range(MAX_REPEATS + 1):
            missing = await self._missing_directories(path)
            if not missing:
                return
            try:
                await self._write(missing)
            except AlreadyExists:
                continue  # another made one of them

    async def _write(self, puts: Iterable[Put]) -> None:
        await self.client.write_many(self._session, puts)

    async def _move(self, old: _Path, new: _Path) -> None:
        """Raises NotFound, AlreadyExists."""
        try:
            await self.client.move(self._session, old.document, new.document)
        except NotFound:
            await self.client.move_all(self._session, old.names, new.names)


def _put(path: _Path, text: str, *, etag: str = "", if_absent: bool = False) -> Put:
    namespace, key = path.document
    # NUL is no text to the service.
    body: dict[str, Any] = {"data": text.encode()} if "\x00" in text else {"text": text}
    return Put(key, namespace, **body, etag=etag, if_absent=if_absent)


def _text(file: Document) -> str:
    return file.text or file.json or (file.data or b"").decode(errors="replace")


def _shown_lines(path: _Path, text: str, view_range: Sequence[int] | None) -> str:
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise ToolError(f"File {path.given} exceeds maximum line limit of {MAX_LINES:,} lines.")
    first, end = 1, len(lines)
    if view_range and len(view_range) == 2:  # noqa: PLR2004  the first line and the last
        first = max(1, view_range[0])
        end = end if view_range[1] == -1 else view_range[1]
    shown = _numbered(lines[first - 1 : end], first)
    return f"Here's the content of {path.given} with line numbers:\n{shown}"


def _numbered(lines: Iterable[str], first: int) -> str:
    return "\n".join(
        f"{number:>{LINE_NUMBER_WIDTH}}\t{line}" for number, line in enumerate(lines, first)
    )


def _shown_directory(path: _Path, documents: Iterable[Document]) -> str:
    sizes: dict[tuple[str, ...], str] = {}
    for document in documents:
        names = document.namespace[len(path.names) :]
        if document.key != DIRECTORY:
            sizes[*names, document.key] = _size(document.size_bytes)
        sizes |= {(*names[:length], ""): DIRECTORY_SIZE for length in range(1, len(names) + 1)}
    lines = [f"{DIRECTORY_SIZE}\t{path.given}"]
    for names in sorted(sizes):
        depth = len(names) - (not names[-1])
        if depth <= SHOWN_DEPTH and not any(name.startswith(".") for name in names):
            lines.append(f"{sizes[names]}\t{path.given}/{'/'.join(names)}")
    shown = "\n".join(lines)
    return (
        f"Here're the files and directories up to 2 levels deep in {path.given}, excluding hidden"
        f" items:\n{shown}"
    )


def _size(nbytes: int) -> str:
    unit = min(max(nbytes.bit_length() - 1, 0) // 10, 3)
    number = nbytes / 1024**unit
    return f"{number:.{0 if number.is_integer() else 1}f}{'BKMG'[unit]}"


def _open(target: str | None, user: str, prefix: str, connection: dict[str, Any]) -> _Files:
    if not user:
        raise ValueError("user: give a name of at least one character")
    session = session_id(prefix_of(prefix), [user])

    async def made() -> DocumentClient:
        return DocumentClient(target, **connection)

    return _Files(background().run(made()), session)


async def _answer(work: Coroutine[Any, Any, str]) -> str:
    try:
        return await work
    except InvalidArgument as error:
        # Too long a name, too large a file: the model can do something about it.
        raise ToolError(error.message) from error


class MemorydMemoryTool(Closing, BetaAbstractMemoryTool):
    """The memory tool of a user, for any number of threads.

    Every method raises ToolError for what the model is to be told, and may raise what the clients
    of memoryd raise: `memoryd.client.MemorydError`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        user: str,
        prefix: str = "anthropic",
        cache_control: BetaCacheControlEphemeralParam | None = None,
        **connection: Any,
    ) -> None:
        """Prepare the tool; the first command connects.

        `target`: `host:port`; None: the variable MEMORYD_TARGET. `user`: whose memory it is; with
        `prefix` it names the session of memoryd: `anthropic:ada`. `cache_control`: sent along with
        the tool. `connection`: `api_key`, `tls`, `timeout` and the other arguments of
        `memoryd.client.DocumentClient`.

        Raises ValueError for a user without a name, or whose session's id is too long.
        """
        super().__init__(cache_control=cache_control)
        self._loop = background()
        self._files = _open(target, user, prefix, connection)

    def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        """Show the lines of a file, or what is in a directory."""
        return self._loop.run(_answer(self._files.view(command)))

    def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        """Make a file that is not there, and its directories."""
        return self._loop.run(_answer(self._files.create(command)))

    def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        """Replace a text that a file has once."""
        return self._loop.run(_answer(self._files.str_replace(command)))

    def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        """Insert lines after a line."""
        return self._loop.run(_answer(self._files.insert(command)))

    def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        """Delete a file, or a directory and all in it, for good."""
        return self._loop.run(_answer(self._files.delete(command)))

    def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        """Give a file or a directory a name that is free."""
        return self._loop.run(_answer(self._files.rename(command)))

    def clear_all_memory(self) -> str:
        """Delete all files and directories for good."""
        return self._loop.run(self._files.clear())

    def close(self) -> None:
        """Close the connection; this ends commands under way."""
        self._loop.run(self._files.client.close())


class AsyncMemorydMemoryTool(ClosedOnExit, BetaAsyncAbstractMemoryTool):
    """The memory tool of a user, for any event loop.

    Its methods raise what those of MemorydMemoryTool do.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        user: str,
        prefix: str = "anthropic",
        cache_control: BetaCacheControlEphemeralParam | None = None,
        **connection: Any,
    ) -> None:
        """Prepare the tool, with the arguments of MemorydMemoryTool; the first command connects."""
        super().__init__(cache_control=cache_control)
        self._loop = background()
        self._files = _open(target, user, prefix, connection)

    async def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        """Show the lines of a file, or what is in a directory."""
        return await self._loop.wait(_answer(self._files.view(command)))

    async def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        """Make a file that is not there, and its directories."""
        return await self._loop.wait(_answer(self._files.create(command)))

    async def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        """Replace a text that a file has once."""
        return await self._loop.wait(_answer(self._files.str_replace(command)))

    async def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        """Insert lines after a line."""
        return await self._loop.wait(_answer(self._files.insert(command)))

    async def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        """Delete a file, or a directory and all in it, for good."""
        return await self._loop.wait(_answer(self._files.delete(command)))

    async def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        """Give a file or a directory a name that is free."""
        return await self._loop.wait(_answer(self._files.rename(command)))

    async def clear_all_memory(self) -> str:
        """Delete all files and directories for good."""
        return await self._loop.wait(self._files.clear())

    async def close(self) -> None:
        """Close the connection; this ends commands under way."""
        await self._loop.wait(self._files.client.close())
