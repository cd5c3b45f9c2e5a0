"""MkDocs hook: `$$` blocks become MathML, which browsers draw without a script from elsewhere."""

import re

from latex2mathml.converter import convert


def on_page_markdown(markdown, **_):
    """Called by MkDocs for every page."""
    return re.sub(r"^\$\$\n(.*?)\n\$\$$", _math, markdown, flags=re.DOTALL | re.MULTILINE)


def _math(match):
    latex, *number = re.split(r"\\tag\{(\d+)\}", match[1])
    label = f"<span>({number[0]})</span>" if number else ""
    style = "display: flex; align-items: center; gap: 1em; overflow-x: auto; margin: 0.8em 0"
    return f'<div style="{style}">{convert(latex.strip(), display="block")}{label}</div>'
