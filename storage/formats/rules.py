"""Validation rules for JSON values; each says why a value does not fit.

A rule returns a path and a reason (`".usage.total_tokens is missing"`), or `""` if the value fits.
Values come from `jsontext.exact`. An object must not repeat a known key; unknown keys are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from storage.formats.jsontext import Repeating

Rule = Callable[[Any], str]

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1


def anything(_value: Any) -> str:
    """Every value fits."""
    return ""


def string(value: Any) -> str:
    """A string."""
    return "" if type(value) is str else " must be a string"


def one_of(*names: str) -> Rule:
    """One of these strings."""
    reason = " must be " + " or ".join(f'"{name}"' for name in names)

    def rule(value: Any) -> str:
        return "" if type(value) is str and value in names else reason

    return rule


def integer(greatest: int) -> Rule:
    """An integer literal from 0 to `greatest`."""
    reason = f" must be an integer from 0 to {greatest}, written in digits alone"

    def rule(value: Any) -> str:
        return "" if type(value) is int and 0 <= value <= greatest else reason

    return rule


_FIT_BY_STRINGS: Final[set[Rule]] = {anything, string}
"""Rules that every string fits."""


def or_null(rule: Rule) -> Rule:
    """A value that fits `rule`, or null."""

    def nullable(value: Any) -> str:
        if value is None or not (wrong := rule(value)):
            return ""
        return f"{wrong}, or null" if wrong.startswith(" must be ") else wrong

    if rule in _FIT_BY_STRINGS:
        _FIT_BY_STRINGS.add(nullable)
    return nullable


def array(rule: Rule) -> Rule:
    """An array whose items all fit `rule`."""

    def items(value: Any) -> str:
        if type(value) is not list:
            return " must be an array"
        for index, item in enumerate(value):
            if wrong := rule(item):
                return f"[{index}]{wrong}"
        return ""

    return items


def object_(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    """An object that has all `required` keys and may have the `optional` ones."""
    rules = {**required, **(optional or {})}
    rule_of, needed = rules.get, required.keys()
    texts = {key for key, rule in rules.items() if rule in _FIT_BY_STRINGS}

    def members(value: Any) -> str:
        if type(value) is not dict:
            if type(value) is not Repeating:
                return " must be an object"
            for key in rules:
                if key in value.keys_repeated:
                    return f".{key} must occur only once"
        if not needed <= value.keys():
            return f".{next(key for key in required if key not in value)} is missing"
        for key, item in value.items():
            if key in texts and type(item) is str:
                continue
            if (rule := rule_of(key)) and (wrong := rule(item)):
                return f".{key}{wrong}"
        return ""

    return members


def map_of(rule: Rule) -> Rule:
    """An object with any keys, whose values all fit `rule`; keys may be repeated."""

    def members(value: Any) -> str:
        if not isinstance(value, dict):
            return " must be an object"
        pairs = value.members if isinstance(value, Repeating) else value.items()
        for key, item in pairs:
            if wrong := rule(item):
                return f".{key}{wrong}"
        return ""

    return members


def tagged(tag: str, variants: Mapping[str, Rule]) -> Rule:
    """A tagged union: the value of key `tag` names the one of `variants` that the object must fit."""
    tagged_object = object_({tag: one_of(*variants)})
    rule_of = variants.get

    def variant(value: Any) -> str:
        if type(value) is dict:
            name = value.get(tag)
            if type(name) is str and (rule := rule_of(name)):
                return rule(value)
        return tagged_object(value) or variants[value[tag]](value)

    return variant


def either(first: Rule, second: Rule, mark: Callable[[Any], bool]) -> Rule:
    """A value that fits `first` or `second`. If neither fits, the reason is the second rule's where
    `mark` says that the value was meant for it, else the first's."""

    def rule(value: Any) -> str:
        wrong = first(value)
        if not wrong:
            return ""
        other = second(value)
        return other if not other or mark(value) else wrong

    return rule
