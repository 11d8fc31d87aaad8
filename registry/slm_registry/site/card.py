"""A model card as HTML. The Markdown is a stranger's: raw HTML stays text, nothing is fetched, no link runs a script."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from slm_registry.site.words import cut, visible

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_SCHEMES = ("https://", "http://", "mailto:")
# The page has a heading of the first level for the model, and of the second for the card.
_DEEPER = 2
_SUMMARY = 180


def render(text: str) -> tuple[str, str]:
    """The card as HTML, and its first paragraph as plain text. Front matter is left out."""
    markdown = _parser()
    tokens = markdown.parse(_body(visible(text.replace("\r\n", "\n"))))
    for token in tokens:
        _tame(token)
    _drop_empty_heads(tokens)
    return markdown.renderer.render(tokens, markdown.options, {}), _summary(tokens)


def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    rules: dict[str, Any] = markdown.renderer.rules  # type: ignore[attr-defined]
    # What may be wider than the page scrolls, and whoever has no mouse must get into it to scroll it.
    rules["table_open"] = lambda *_: '<div class="scroll" role="group" aria-label="Table" tabindex="0"><table>\n'
    rules["table_close"] = lambda *_: "</table></div>\n"
    rules["fence"] = rules["code_block"] = _code
    return markdown


def _code(tokens: Sequence[Token], at: int, *_: object) -> str:
    from markdown_it.common.utils import escapeHtml

    return f'<pre tabindex="0" role="group" aria-label="Code"><code>{escapeHtml(tokens[at].content)}</code></pre>\n'


def _body(text: str) -> str:
    """The text after its front matter."""
    if not text.startswith("---\n"):
        return text
    end = text.find("\n---\n", 3)
    return text if end < 0 else text[end + 5 :]


def _tame(token: Token) -> None:
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{min(int(token.tag[1]) + _DEEPER, 6)}"
    elif token.type == "th_open":
        token.attrs = {"scope": "col"}
    elif token.type == "td_open":
        token.attrs = {}
    for child in token.children or ():
        _tame_inline(child)
    if token.children:
        _drop_foreign_links(token.children)


def _drop_empty_heads(tokens: Sequence[Token]) -> None:
    """Make a plain cell of a header cell that says nothing: it heads no column for whoever hears the table."""
    for at, token in enumerate(tokens):
        if token.type == "th_open" and not tokens[at + 1].content.strip():
            token.tag = tokens[at + 2].tag = "td"
            token.attrs = {}


def _tame_inline(token: Token) -> None:
    if token.type == "image":
        # An image would be fetched from somewhere, or be missing: its description stands for it.
        token.type, token.content = "text", f"[image: {token.content}]"
        token.tag, token.children = "", None


def _drop_foreign_links(tokens: list[Token]) -> None:
    """Keep links to the outside; the text alone of those into the bundle, which lead nowhere from here."""
    kept = True
    for token in tokens:
        if token.type == "link_open":
            kept = str(token.attrGet("href") or "").lower().startswith(_SCHEMES)
            token.attrs = {"href": token.attrs["href"], "rel": "noopener noreferrer nofollow"} if kept else {}
        if token.type in ("link_open", "link_close") and not kept:
            token.type, token.content, token.tag, token.nesting = "text", "", "", 0


def _summary(tokens: Sequence[Token]) -> str:
    for before, token in pairwise(tokens):
        if before.type == "paragraph_open" and before.level == 0:
            parts = [
                child.content if child.type in ("text", "code_inline") else " "
                for child in token.children or ()
                if child.type in ("text", "code_inline", "softbreak", "hardbreak")
            ]
            return cut(" ".join("".join(parts).split()), _SUMMARY)
    return ""
