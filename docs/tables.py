"""Writes the tables of rules in README.md and docs/: from the records, `lrajax.RULES`, and audits.

python docs/tables.py
"""

import inspect
import pathlib
import re
from collections.abc import Mapping

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


def cards(found: Mapping[str, lrajax.Card], pages: str) -> str:
    """What each rule needs and costs, from its card; `pages` is the folder of the rules' pages."""
    rows = ["| `--algo` | W's transposes | φ′ | depth | products |"]
    rows += ["| --- | --- | --- | --- | --- |"]
    for name, card in found.items():
        cells = [f"[`{name}`]({pages}/{name}.md)", *needs(card)]
        rows.append(f"| {' | '.join(cells)} | {card.products_over_backprop:.2f} |")
    return "\n".join(rows) + "\n"


def needs(card: lrajax.Card) -> tuple[str, str, str]:
    """Whether a rule needs transposes of W and derivatives, and how many products in a row."""
    hidden_to_output = len(card.angles) - 1
    transposes = {(): "none", (hidden_to_output,): "the output's"}.get(card.transposes, "all")
    signs = ", their signs alone" if card.signs_alone else ""
    return transposes + signs, "yes" if card.derivatives else "no", str(card.depth)


def written(text: str, table: str) -> str:
    """The page with this table in place of the one it has under the same head."""
    head = re.escape(table.partition("\n")[0])
    return re.sub(rf"{head}\n(?:\|.*\n)+", lambda _: table, text)


README, CARDS = ROOT / "README.md", ROOT / "docs" / "api" / "cards.md"
SIZES = (64, 32, 32, 32, 10)  # of the network that the cards are of
PAGES = {README: readme, ROOT / "docs" / "index.md": index}

if __name__ == "__main__":
    for path, table in PAGES.items():
        path.write_text(written(path.read_text(), table()))
    found = {
        name: lrajax.audit(make, lrajax.mlp(SIZES)) for name, make in lrajax.ALGORITHMS.items()
    }
    for path, pages in ((CARDS, "../rules"), (README, "docs/rules")):
        path.write_text(written(path.read_text(), cards(found, pages)))
