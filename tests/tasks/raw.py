"""Raw files of the formats, small: as many documents as a test wants."""

from __future__ import annotations

import json

TEXT = "the people of the nation and the law of the state in a year of peace and public work"
WORDS = TEXT.split()


def passages(count: int) -> str:
    """LAMBADA's form."""
    return "".join(json.dumps({"text": " ".join(WORDS[i % 7 : 8 + i % 9])}) + "\n" for i in range(count))


def six_lines(count: int) -> str:
    """HellaSwag's form."""
    return "".join(
        f"Law {i}: the people of\n{i % 4}\nthe state.\nthe nation in peace.\na year {i}.\nwork.\n" for i in range(count)
    )


def goals(count: int) -> str:
    """PIQA's form."""
    return "".join(json.dumps({"goal": f"work {i}", "sol1": "the law", "sol2": "a peace"}) + "\n" for i in range(count))
