"""Arguments of an expert by its own JSON schema: what fits, and why not.

The part of JSON Schema (draft 2020-12) that tools use is checked: type, properties, required,
additionalProperties, items, enum, const, bounds, anyOf, oneOf, allOf, $ref within the document. A schema that
constrains in another way is refused as a whole, so that nothing passes unchecked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from agentmtl.errors import UsageError

Schema = Mapping[str, Any]

_SILENT = frozenset(
    {"title", "description", "default", "examples", "$defs", "definitions", "$schema", "$id", "format"}
)
_DEPTH = 32  # of schemas in schemas, and of values
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
}
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number", lambda v, bound: v >= bound),
    "maximum": ("number", lambda v, bound: v <= bound),
    "exclusiveMinimum": ("number", lambda v, bound: v > bound),
    "exclusiveMaximum": ("number", lambda v, bound: v < bound),
    "minLength": ("string", lambda v, bound: len(v) >= bound),
    "maxLength": ("string", lambda v, bound: len(v) <= bound),
    "minItems": ("array", lambda v, bound: len(v) >= bound),
    "maxItems": ("array", lambda v, bound: len(v) <= bound),
}
_SHAPED = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "oneOf",
     "allOf", "$ref", *_BOUNDS}
)  # fmt: skip


def problem(value: Any, schema: Schema) -> str:
    """What is wrong with a value, naming the place; "" where it fits.

    Raises UsageError for a schema that cannot be checked.
    """
    return _problem(value, schema, schema, "", 0)


def read_arguments(text: str, schema: Schema) -> tuple[dict[str, Any], str]:
    """(the object that a text is, what is wrong with it); the object is {} unless all is well."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return {}, "they are no JSON"
    if not isinstance(value, dict):
        return {}, "they are no object"
    wrong = problem(value, schema)
    return ({}, wrong) if wrong else (value, "")


def without_model(question: str, schema: Schema | None) -> dict[str, Any] | None:
    """Arguments that need no model: none, or the question as the only text that is required.

    None where only a model could tell. Raises UsageError for a schema that cannot be checked.
    """
    if not schema:
        return {}
    required = schema.get("required") or []
    found = {required[0]: question} if len(required) == 1 else {}
    return None if problem(found, schema) else found


def check_schema(schema: Schema) -> None:
    """Raises UsageError for a schema that constrains in a way that is not checked here."""
    _understood(schema, 0)
    for part in _parts_of(schema):
        if not isinstance(part, bool):
            check_schema(part)


def _parts_of(schema: Schema) -> list[Any]:
    """The schemas within a schema."""
    found = [schema[name] for name in ("items", "additionalProperties") if name in schema]
    for name in ("properties", "$defs", "definitions"):
        found += list(schema.get(name, {}).values())
    for name in ("anyOf", "oneOf", "allOf"):
        found += list(schema.get(name, ()))
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _problem(value: Any, schema: Any, root: Schema, place: str, depth: int) -> str:
    if isinstance(schema, bool):
        return "" if schema else f"{place or 'it'} may not be there"
    _understood(schema, depth)
    if "$ref" in schema:
        found = _problem(value, _resolved(str(schema["$ref"]), root), root, place, depth + 1)
        if found:
            return found
    for check in (_type, _choice, _bounds, _parts, _alternatives):
        found = check(value, schema, root, place, depth)
        if found:
            return found
    return ""


def _understood(schema: Any, depth: int) -> None:
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        raise UsageError("A schema of arguments is no object, or too deep.", "Give a flat JSON schema.")
    unknown = sorted(set(schema) - _SHAPED - _SILENT)
    if unknown:
        raise UsageError(
            f"A schema of arguments constrains by {unknown[0]!r}, which is not checked here.",
            "Leave that out of the schema, and check it in the expert.",
        )


def _resolved(ref: str, root: Schema) -> Any:
    found: Any = root
    for part in ref.removeprefix("#").split("/")[1:] if ref.startswith("#") else [ref]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    if found is None:
        raise UsageError(f"A schema of arguments refers to {ref!r}, which it does not hold.", "Mend it.")
    return found


def _type(value: Any, schema: Schema, root: Schema, place: str, depth: int) -> str:
    wanted = schema.get("type")
    if wanted is None:
        return ""
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if any(name not in _TYPES for name in names):
        raise UsageError(f"A schema of arguments has the type {wanted!r}.", f"Use {', '.join(_TYPES)}.")
    return "" if any(_TYPES[n](value) for n in names) else f"{place or 'it'} is no {' or '.join(names)}"


def _choice(value: Any, schema: Schema, root: Schema, place: str, depth: int) -> str:
    allowed = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    same = any(type(one) is type(value) and one == value for one in allowed)
    return f"{place or 'it'} is none of {', '.join(map(str, allowed))}" if allowed and not same else ""


def _bounds(value: Any, schema: Schema, root: Schema, place: str, depth: int) -> str:
    for name, (kind, holds) in _BOUNDS.items():
        if name in schema and _TYPES[kind](value) and not holds(value, schema[name]):
            return f"{place or 'it'} breaks {name} {schema[name]}"
    return ""


def _parts(value: Any, schema: Schema, root: Schema, place: str, depth: int) -> str:
    if isinstance(value, list) and "items" in schema:
        inner = [(f"{place}[{n}]", one, schema["items"]) for n, one in enumerate(value)]
    elif isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        if missing:
            return f"{_inside(place, missing[0])} is missing"
        named, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        inner = [(_inside(place, name), one, named.get(name, rest)) for name, one in value.items()]
    else:
        return ""
    found = (_problem(one, part, root, where, depth + 1) for where, one, part in inner)
    return next((wrong for wrong in found if wrong), "")


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _alternatives(value: Any, schema: Schema, root: Schema, place: str, depth: int) -> str:
    for name, fits in (("allOf", None), ("anyOf", range(1, 1_000)), ("oneOf", range(1, 2))):
        if name in schema:
            found = [_problem(value, one, root, place, depth + 1) for one in schema[name]]
            if fits is None and any(found):
                return next(wrong for wrong in found if wrong)
            if fits is not None and found.count("") not in fits:
                return f"{place or 'it'} fits none of {name}" if "" not in found else f"{place} fits several"
    return ""
