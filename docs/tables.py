"""Writes the tables of rules in README.md and docs/index.md from the records, `lrajax.RULES`.

python docs/tables.py
"""

import inspect
import pathlib
import re

import lrajax

ROOT = pathlib.Path(__file__).parents[1]


def readme() -> str:
    """The README's: rule, paper, file."""
    rows = ["| `--algo` | rule | paper | file |", "| --- | --- | --- | --- |"]
    for rule in lrajax.RULES.values():
        name = pathlib.Path(inspect.getfile(inspect.unwrap(rule.factory))).name
        file = f"[{name}](lrajax/algorithms/{name})"
        rows.append(f"| `{rule.name}` | {rule.about} | {rule.paper} | {file} |")
    return "\n".join(rows) + "\n"


def index() -> str:
    """The site's: rule, paper, where its feedback comes from."""
    rows = ["| `--algo` | rule | paper | feedback weights |", "| --- | --- | --- | --- |"]
    for rule in lrajax.RULES.values():
        link = f"[`{rule.name}`](rules/{rule.name}.md)"
        rows.append(f"| {link} | {rule.about} | {rule.paper} | {feedback(rule)} |")
    return "\n".join(rows) + "\n"


def feedback(rule: lrajax.Rule) -> str:
    """What a rule's errors or targets go down through."""
    if "e_init" not in rule.hyperparameters:
        return "the transposes"
    return "drawn once, fixed" if rule.fixed_feedback else "learned"


def written(text: str, table: str) -> str:
    """The page with this table in place of the one it has."""
    return re.sub(r"\| `--algo` \|.*\n(?:\|.*\n)+", lambda _: table, text)


PAGES = {ROOT / "README.md": readme, ROOT / "docs" / "index.md": index}

if __name__ == "__main__":
    for path, table in PAGES.items():
        path.write_text(written(path.read_text(), table()))
