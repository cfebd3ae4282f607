"""That what the documents point at is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def anchors(page: Path) -> set[str]:
    """Of its headings, as they are made on GitHub."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_there_are(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


MEASURED = ["results", "rivals", "choices", "families", "speed"]


@pytest.mark.parametrize("page", MEASURED)
def test_figures_come_from_tables_and_scripts_that_there_are(page):
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    tables = re.findall(r"`(\w[\w.]*)\.json`", text) + re.findall(r"--name\s+([\w.]*\w)", text)
    rows = re.findall(r"^\| (`[^|]*`) \| .*(?:--|levels)", text, re.MULTILINE)
    tables += [name for row in rows for name in re.findall(r"`([a-z]+_\w+)`", row)]
    kept = {each.stem for each in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert set(tables) <= kept
    scripts = set(re.findall(r"`(\w+\.py)\b", text))
    assert scripts <= {each.name for each in (ROOT / "benchmarks").glob("*.py")}
    assert tables
    assert scripts
