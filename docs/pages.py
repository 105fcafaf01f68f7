"""What the site has beside the files of docs/: a hook that MkDocs calls (mkdocs.yml), and no other module.

The README becomes the first page, the log of findings and the changelog pages too; the reference and the gallery's
table are made of parts and recipes at every build, so that nothing written by hand can go out of date; a link to a file
of the repository that is no page becomes a page that shows the file. The Markdown itself stays as a code host reads it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "recipes/LOG.md": "log.md",
}
"""Files outside docs/ that are pages, and where on the site."""
REFERENCE, SOURCE = "reference", "source"
"""Folders of the site that hold the reference and the files of the repository that pages link to."""
LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=[)\s])")
FENCE = re.compile(r"^\s*(```+|~~~+)")
RECIPES = "<!-- every recipe, by the site's build -->"
PARTS = "<!-- every kind, by the site's build -->"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


# --- what MkDocs calls ------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Every kind stands in the navigation below the reference, and no page asks another server for anything."""
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] += [{title: f"{REFERENCE}/{name}.md"} for name, title in kinds()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    made = {uri: moved((ROOT / path).read_text(encoding="utf-8"), path, uri) for path, uri in OUTSIDE.items()}
    made |= {f"{REFERENCE}/{name}.md": text for name, text in reference()}
    linked = {path for page in [*sources(), *(ROOT / path for path in OUTSIDE)] for path in shown(page)}
    made |= {place(path): source_page(path) for path in sorted(linked)}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links of a page of docs/ that lead out of docs/; the tables that are made of recipes and kinds."""
    uri = page.file.src_uri
    if not (ROOT / "docs" / uri).is_file():
        return markdown
    markdown = markdown.replace(RECIPES, "\n".join(recipe_table())).replace(PARTS, "\n".join(kind_table()))
    return moved(markdown, f"docs/{uri}", uri)


# --- links ------------------------------------------------------------------------------------------------------


def sources() -> list[Path]:
    """The Markdown files of docs/."""
    return sorted((ROOT / "docs").rglob("*.md"))


def moved(markdown: str, path: str, uri: str) -> str:
    """The text of the repository's file ``path`` as it must stand on the page ``uri``: its links still lead there."""
    lines, open_by = [], ""
    for line in markdown.splitlines():
        fence = FENCE.match(line)
        if fence and not open_by:
            open_by = fence[1]
        elif open_by and line.strip() == open_by:
            open_by = ""
        elif not open_by:
            line = LINK.sub(lambda found: _led(found[1], path, uri), line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def shown(page: Path) -> Iterator[str]:
    """Files of the repository that a document links to and that are no pages: they are shown as they stand."""
    path = page.relative_to(ROOT).as_posix()
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        meant = _meant(target, path)
        if meant and place(meant).startswith(f"{SOURCE}/") and (ROOT / meant).is_file():
            yield meant


def place(path: str) -> str:
    """Where the site has a file or folder of the repository."""
    if (ROOT / path / "README.md").is_file():
        path = posixpath.join(path, "README.md")
    if path in OUTSIDE:
        return OUTSIDE[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{SOURCE}/{path}.md"


def source_page(path: str) -> str:
    """A file of the repository as a page, which the search leaves out."""
    text = (ROOT / path).read_text(encoding="utf-8")
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    language = LANGUAGES.get(Path(path).suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _meant(target: str, path: str) -> str:
    """The file of the repository that a link means; "" where it leads elsewhere or to its own page."""
    if "://" in target or target.startswith(("#", "mailto:")):
        return ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target.partition("#")[0]))


def _led(target: str, path: str, uri: str) -> str:
    """The link on page ``uri`` to what ``target`` means in the file ``path``."""
    meant = _meant(target, path)
    if not meant:
        return target
    anchor = target.partition("#")[2]
    there = posixpath.relpath(place(meant), posixpath.dirname(uri) or ".")
    return f"{there}#{anchor}" if anchor else there


# --- what is made -----------------------------------------------------------------------------------------------


def kinds() -> list[tuple[str, str]]:
    """(page, heading) of each kind, and of the sections of recipes."""
    from workbench.cli.reference import spoken
    from workbench.core.index import scan

    fixed = [("fits", "What fits what"), ("sections", "Sections of a recipe")]
    return [*fixed, *((kind, spoken(kind)) for kind in sorted(scan().kinds))]


def reference() -> Iterator[tuple[str, str]]:
    """(name, Markdown) of each page of the reference."""
    from workbench.cli.fitting import fits_page
    from workbench.cli.reference import kind_page, sections_page
    from workbench.core.index import import_parts, scan

    known = scan()
    import_parts(known)
    yield "fits", fits_page()
    yield "sections", sections_page()
    for kind in sorted(known.kinds):
        yield kind, kind_page(known, kind)


def kind_table() -> list[str]:
    """A line for each kind: its page, its parts, what it is."""
    from workbench.cli.reference import code, inline, spoken, table
    from workbench.core.index import scan

    known = scan()
    cells = [
        (f"[{spoken(kind)}]({REFERENCE}/{kind}.md)", ", ".join(map(code, names)), inline(known.kinds[kind].summary))
        for kind, names in known.names().items()
    ]
    return table(("kind", "parts", "what it is"), cells)


def recipe_table() -> list[str]:
    """Every shipped recipe as its own header says it: what it is, how it is run, what came of it."""
    from workbench.cli.reference import inline, table

    cells = []
    for file in sorted((ROOT / "recipes").rglob("*.yaml")):
        what, came = header(file.read_text(encoding="utf-8"))
        name = file.relative_to(ROOT).as_posix()
        cells.append((f"`{name}`", inline(what), inline(came)))
    return table(("recipe", "what it is", "what came of it"), cells)


def header(text: str) -> tuple[str, str]:
    """(what a recipe is, what came of it) by its leading comment: its first sentence or two, and ``expected:``."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    whole = " ".join(lines)
    what = re.split(r" ?\brun: ", whole)[0]
    found = re.search(r"expected: *(.*)", whole)
    return what.strip(), found[1].strip() if found else ""
