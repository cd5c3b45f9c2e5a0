"""MkDocs hooks: a page a rule, pages from the root of the repository, equations without a script.

`$$` blocks become MathML, which browsers draw by themselves.
"""

import pathlib
import re

from latex2mathml.converter import convert
from mkdocs.structure.files import File

import lrajax

ROOT = pathlib.Path(__file__).parents[1]
# Pages of the root that the site shows too; their links work in both places.
PAGES = ("RESULTS.md", "LEADERBOARD.md", "BUILD_NOTES.md", "CONTRIBUTING.md", "CHANGELOG.md")


def on_config(config):
    """Called by MkDocs once: a page for each rule, in the order of the records."""
    pages = [{rule.title: f"rules/{name}.md"} for name, rule in lrajax.RULES.items()]
    (section,) = (entry for entry in config["nav"] if "Rules" in entry)
    section["Rules"] = pages
    return config


def on_files(files, config):
    """Called by MkDocs with the files of docs/."""
    for path in (*(ROOT / page for page in PAGES), *(ROOT / "figures").glob("*.png")):
        source = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, source, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, **_):
    """Called by MkDocs for every page."""
    if page.file.src_uri in PAGES:
        markdown = markdown.replace("](docs/", "](")
    markdown = re.sub(rf"\]\(\.\./((?:\.\./)*(?:{'|'.join(PAGES)}))", r"](\1", markdown)
    return re.sub(r"^\$\$\n(.*?)\n\$\$$", _math, markdown, flags=re.DOTALL | re.MULTILINE)


def on_page_content(html, **_):
    """Called by MkDocs for every page: short flags stay whole, for browsers break behind dashes."""
    return re.sub(r"<code>.*?</code>", _whole_flags, html, flags=re.DOTALL)


def _whole_flags(code):
    return re.sub(r"(?<![\w-])--\w{1,30}\b", r'<span class="flag">\g<0></span>', code[0])


def _math(match):
    latex, *number = re.split(r"\\tag\{(\d+)\}", match[1])
    # Each part by itself, for no browser breaks an equation into lines.
    parts = [convert(part.strip(), display="block") for part in latex.split("\\qquad")]
    label = f"<span>({number[0]})</span>" if number else ""
    return f'<div class="equation">{"".join(map(_inline, parts))}{label}</div>'


def _inline(equation):
    """Beside others, and as large as by itself."""
    return equation.replace('display="block"', 'display="inline" displaystyle="true"')
