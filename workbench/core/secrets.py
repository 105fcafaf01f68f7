"""What must not be written down: passwords in addresses, and what the environment calls a secret."""

from __future__ import annotations

import os
import re
from typing import Any

NAMES = re.compile(
    r"(^|_)(TOKEN|SECRET|PW|AUTH)(_|$)|PASSW|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE
)
"""Names of environment variables whose values are secrets."""
SHORTEST = 8
"""Characters of a value below which it may stand anywhere by chance."""
USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
"""Who an address is opened as, with the password: ``https://user:password@host``."""
HIDDEN = "[hidden]"


def without_secrets(text: str) -> str:
    """``text`` with the secrets of this process's environment, and users and passwords in addresses, blotted out."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and NAMES.search(name):
            text = text.replace(value, HIDDEN)
    return USER.sub(f"{HIDDEN}@", text)


def plain_without_secrets(data: Any) -> Any:
    """The same of every text in plain data."""
    if isinstance(data, str):
        return without_secrets(data)
    if isinstance(data, dict):
        return {key: plain_without_secrets(value) for key, value in data.items()}
    return [plain_without_secrets(value) for value in data] if isinstance(data, (list, tuple)) else data
