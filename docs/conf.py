"""How `make docs` builds the site; Sphinx reads this file.

The sources are those of the whole project, so that a link between documents is the same on the site
as in the repository. What is no page, such as a proto, is copied for download.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "memoryd"
html_title = "memoryd"
html_theme = "furo"
# The first page of the folder is that of docs/.
html_extra_path = ["site"]
html_show_sphinx = False
html_copy_source = False

extensions = ["myst_parser"]
# The anchors that a forge gives to headings, which links between documents name.
myst_heading_anchors = 4

root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/api/*.md",
    "docs/integrations/*.md",
    "examples/*.md",
    "clients/typescript/*.md",
]
exclude_patterns = [".*", "build", "examples/node", "clients/node_modules"]

NAVIGATION = {
    "Learn": ["../README", "tutorial", "../examples/README"],
    "Understand": ["concepts", "deletion", "recall", "../ARCHITECTURE"],
    "Look up": [
        "settings",
        "documents",
        "conversations",
        "http",
        "console",
        "python",
        "clients",
        "../clients/typescript/README",
        "integrations/index",
        "integrations/langgraph",
        "integrations/langgraph_checkpoint",
        "integrations/langchain",
        "integrations/openai_agents",
        "integrations/anthropic",
        "integrations/pydantic_ai",
        "integrations/adk",
        "integrations/agent_framework",
        "integrations/strands",
        "integrations/mcp",
        "integrations/openfeature",
        "limits",
        "api/memory",
        "api/session",
        "api/document",
        "api/conversation",
        "api/condition",
        "api/tool_config",
        "api/error_reason",
        "../CHANGELOG",
    ],
    "Run": [
        *("access", "deploy", "tls", "databases", "postgresql", "citus", "failover", "backup"),
        *("telemetry", "alerts", "performance"),
    ],
    "Contribute": ["../CONTRIBUTING", "../SECURITY"],
}
"""Every page, in the order of the site's menu. A page that is missing fails the build."""


def add_navigation(_: Sphinx, docname: str, source: list[str]) -> None:
    """Append the menu to the first page, where a reader of the repository would see it as code."""
    if docname == root_doc:
        for caption, pages in NAVIGATION.items():
            lines = ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]
            source[0] += "\n" + "\n".join(lines) + "\n"


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
