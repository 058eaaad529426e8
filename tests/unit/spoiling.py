"""Values spoilt in any place, for tests of properties (hypothesis)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

__all__ = ["json_values", "spoilt", "spoilt_text"]

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 400)
    | st.sampled_from([10**30, -(10**19), 2**63, 0.5, 1e308, -0.0, float("nan"), float("inf"), "", "x", "1", "501.0"])
    | st.floats(allow_nan=True)
    | st.text(max_size=6)
)
json_values = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from _places(inner, (*path, key))


@st.composite
def spoilt(draw: st.DrawFn, good: Any, words: tuple[str, ...] = ()) -> Any:
    """``good`` with one to four places changed: removed, renamed, said twice, or given any value.

    ``words`` are values that mean something there, which are tried more often than chance would.
    """
    value = copy.deepcopy(good)
    values = json_values | st.sampled_from(words) if words else json_values
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(value))
        if not places:
            return value
        *inside, last = draw(st.sampled_from(places))
        holder: Any = value
        for key in inside:
            holder = holder[key]
        match draw(st.sampled_from(["set", "set", "set", "set", "remove", "rename", "twice"])):
            case "set":
                holder[last] = draw(values)
            case "remove":
                del holder[last]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.text(max_size=5) | st.sampled_from(words or ("name",)))] = holder.pop(last)
            case _:
                if isinstance(holder, list):
                    holder.insert(draw(st.integers(0, len(holder))), copy.deepcopy(holder[last]))
                else:
                    holder[f"{last}2"] = copy.deepcopy(holder[last])
    return value


@st.composite
def spoilt_text(draw: st.DrawFn, good: str) -> str:
    """``good`` with one to four letters replaced, removed or put in."""
    letters = list(good)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(letters) - 1, 0)))
        put = draw(st.sampled_from([*"\t:{}[],'\"&*!|>%@`#-? \n~\\\x00é\ud800", ""]) | st.characters())
        letters[place : place + draw(st.integers(0, 2))] = put
    return "".join(letters)
