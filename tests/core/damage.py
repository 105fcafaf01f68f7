"""Random damage to a recipe's data, for property tests."""

from __future__ import annotations

import copy
import random

from hypothesis import strategies as st

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=3),
    st.sampled_from(["sink", "flat", "cut", "even", "1e-4", 10**400, -1, 0, (), {}, [], [[]], object()]),
    st.just({"type": None}),
    st.recursive(
        st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
        ),
        max_leaves=8,
    ),
)  # fmt: skip


def spots(data, path=()):
    """Every (path) in the data, the root included."""
    yield path
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from spots(value, (*path, key))


def damage(data, junk, chance: random.Random):
    """Replace, drop, rename or add something, somewhere."""
    data = copy.deepcopy(data)
    path = chance.choice(list(spots(data)))
    if not path:
        return junk
    holder = data
    for step in path[:-1]:
        holder = holder[step]
    key = path[-1]
    action = chance.randrange(4)
    if action == 0:
        holder[key] = junk
    elif action == 1:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, junk)
    elif action == 2:
        holder[chance.choice([str(key)[:-1], f"{key}x", str(key).upper(), junk.__class__.__name__])] = holder.pop(key)
    else:
        holder[chance.choice(["type", "vocab", "steps", "", "a.b", 7, None])] = junk
    return data
