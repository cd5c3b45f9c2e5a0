"""Says where the repository is, in what a release's index page shows.

    python .github/release_pages.py https://HOST/OWNER/NAME/blob/v1.2.3

README.md's links become absolute, for an index page has none of the files; setup.cfg gets the
address. The release workflow runs it on its own copy, and nothing of it is committed.
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
    """Changes README.md and setup.cfg in place."""
    url = sys.argv[1]
    readme, setup = ROOT / "README.md", ROOT / "setup.cfg"
    readme.write_text(absolute(readme.read_text(), url))
    source = f"project_urls =\n    Source = {url}\n"
    setup.write_text(setup.read_text().replace("project_urls =\n", source))


if __name__ == "__main__":
    main()
