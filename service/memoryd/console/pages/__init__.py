"""The pages: each module has its routes, and its entry in the navigation where it has one."""

from memoryd.console.pages import (
    erase,
    memory,
    memory_edit,
    purge,
    recall,
    session,
    sessions,
    tools,
)

PAGES = (sessions, session, memory, memory_edit, purge, recall, tools, erase)
"""In the order of the navigation."""

ROUTES = tuple(route for page in PAGES for route in page.ROUTES)
NAVIGATION = tuple(page.ENTRY for page in PAGES if page.ENTRY is not None)
