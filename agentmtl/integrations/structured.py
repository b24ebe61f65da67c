"""Outputs of a schema: what a server is told to constrain the text to, and how the text is read.

A text that was cut off is an error, not a shorter object: LangChain's own JSON parser completes it.
"""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Any, Literal, TypeAlias

from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel, ValidationError

from agentmtl.errors import ModelError

Schema: TypeAlias = dict[str, Any] | type
Method: TypeAlias = Literal["json_schema", "json_mode", "function_calling"]
_HINT = "Raise max_tokens, or ask for less."


def constrained(
    model: BaseChatModel, schema: Schema, method: Method, include_raw: bool
) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
    """The model bound to a schema, with `read` after it.

    With `include_raw` the result is {"raw", "parsed", "parsing_error"}, as LangChain has it.
    """
    bound = model.bind(
        response_format=_response_format(schema, method),
        ls_structured_output_format={"kwargs": {"method": method}, "schema": schema},
    )
    parser: Runnable[AIMessage, Any] = RunnableLambda(lambda message: read(message, schema), name="read")
    if not include_raw:
        return bound | parser
    nothing: Runnable[Any, None] = RunnableLambda(lambda _: None)
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=nothing)
    failed = RunnablePassthrough.assign(parsed=nothing)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def read(message: AIMessage, schema: Schema) -> dict[str, Any] | BaseModel:
    """The object that a message holds. Raises ModelError where it is none, or not of the schema."""
    try:
        found = json.loads(str(message.text))
    except ValueError as error:
        raise ModelError(f"The model's output is no JSON: {error}.", _HINT) from error
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        try:
            return schema.model_validate(found)
        except ValidationError as error:
            what = error.errors(include_url=False)[0]
            place = ".".join(map(str, what["loc"]))
            raise ModelError(
                f"The model's output is not of the schema: {place} {what['msg']}.", _HINT
            ) from error
    of_version_1 = getattr(schema, "parse_obj", None)  # a class of pydantic.v1, which LangChain takes too
    if of_version_1 is not None:
        try:
            one: BaseModel = of_version_1(found)
        except ValueError as error:
            raise ModelError("The model's output is not of the schema.", _HINT) from error
        return one
    if not isinstance(found, dict):
        raise ModelError("The model's output is no JSON object.", _HINT)
    missing = sorted(set(convert_to_json_schema(schema).get("required", ())) - set(found))
    if missing:
        raise ModelError(f"The model's output lacks {', '.join(missing)}.", _HINT)
    return found


def _response_format(schema: Schema, method: Method) -> dict[str, Any]:
    if method == "json_mode":
        return {"type": "json_object"}
    converted = convert_to_json_schema(schema)
    name = str(converted.get("title") or "output")
    return {"type": "json_schema", "json_schema": {"name": name, "schema": converted, "strict": True}}
