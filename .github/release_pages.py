"""Writes the index page of a release, and says there where the repository is.

    python .github/release_pages.py https://HOST/OWNER/NAME/blob/v1.2.3

INDEX.md is README.md with absolute links, for an index page has none of the files; setup.cfg gets
it in README.md's place, and the address. The release workflow runs this; nothing is committed.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]


def absolute(text: str, url: str) -> str:
    """The text with this address before every relative link; a picture's is that of its bytes."""
    raw = url.replace("/blob/", "/raw/")
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#)", rf"\g<1>{raw}/", text)
    return re.sub(r"(\]\()(?!https?:|#)", rf"\g<1>{url}/", text)


def main() -> None:
    """Writes INDEX.md and changes setup.cfg."""
    url = sys.argv[1]
    (ROOT / "INDEX.md").write_text(absolute((ROOT / "README.md").read_text(), url))
    setup = (ROOT / "setup.cfg").read_text()
    source = f"project_urls =\n    Source = {url.partition('/blob/')[0]}\n"
    setup = setup.replace("project_urls =\n", source).replace("file: README.md", "file: INDEX.md")
    (ROOT / "setup.cfg").write_text(setup)


if __name__ == "__main__":
    main()
