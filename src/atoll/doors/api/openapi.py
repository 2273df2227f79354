"""The API's own routes, each declared once: what serves it, and what the OpenAPI document says of it.

The sign-in pages are for browsers and not part of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import atoll

Schema: TypeAlias = dict[str, Any]
TEXT: Schema = {"type": "string"}
ERROR_NAME = "Error"
ERROR: Schema = {"$ref": f"#/components/schemas/{ERROR_NAME}"}
_ERROR_SCHEMA: Schema = {
    "type": "object",
    "required": ["code", "error"],
    "properties": {
        "code": {**TEXT, "description": "The kind of error; stable."},
        "error": {**TEXT, "description": "What failed, for people."},
        "hint": {**TEXT, "description": "What to try next."},
        "fields": {"type": "object", "description": "Values the error names."},
    },
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One status: its bodies by media type, and the headers it always has."""

    text: str
    bodies: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)  # name -> what it says
    maybe: Mapping[str, str] = field(default_factory=dict)  # headers it may have


def error(text: str, **headers: str) -> Answer:
    """A status whose body is an error; `retry_after` names the header Retry-After."""
    named = {name.replace("_", "-"): said for name, said in headers.items()}
    return Answer(text=text, bodies={"application/json": ERROR}, headers=named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a request carries."""

    text: str
    media: str
    schema: Schema
    examples: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One path with one method."""

    path: str
    name: str  # operationId
    text: str
    serve: Callable[[Request], Awaitable[Response]]
    answers: Mapping[int, Answer]
    method: str = "GET"
    body: Body | None = None
    headers: Mapping[str, Schema] = field(default_factory=dict)  # optional ones of a request
    is_open: bool = True  # needs no token

    @property
    def route(self) -> Route:
        """For the application."""
        return Route(self.path, self.serve, methods=[self.method], name=self.name)

    def to_json(self) -> Schema:
        """The operation object."""
        operation: Schema = {
            "operationId": self.name,
            "summary": self.text,
            "security": [] if self.is_open else [{"token": []}],
            "responses": {str(status): _answer(said) for status, said in self.answers.items()},
        }
        if self.headers:
            operation["parameters"] = [
                {"name": name, "in": "header", "required": False, "schema": schema}
                for name, schema in self.headers.items()
            ]
        if self.body is not None:
            examples = {name: {"value": line} for name, line in self.body.examples.items()}
            content = {self.body.media: {"schema": self.body.schema, "examples": examples}}
            operation["requestBody"] = {
                "description": self.body.text, "required": True, "content": content
            }  # fmt: skip
        return operation


def document(endpoints: Sequence[Endpoint], *, url: str) -> Schema:
    """The OpenAPI document of these endpoints at `url`."""
    paths: dict[str, Schema] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = endpoint.to_json()
    bearer = {"type": "http", "scheme": "bearer", "description": "A token; see docs/api.md."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Atoll",
            "version": atoll.__version__,
            "description": "Every command of the cloud, by one endpoint.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": url}],
        "paths": paths,
        "components": {
            "schemas": {ERROR_NAME: _ERROR_SCHEMA},
            "securitySchemes": {"token": bearer},
        },
    }


def served(endpoints: Sequence[Endpoint], *, url: str) -> Endpoint:
    """The endpoint that gives the document out: of the others, and of itself."""

    async def serve(_request: Request) -> Response:
        return JSONResponse(document([*endpoints, own], url=url))

    own = Endpoint(
        path="/openapi.json",
        name="openapi",
        text="This document.",
        serve=serve,
        answers={200: Answer(text="OpenAPI 3.1.", bodies={"application/json": {"type": "object"}})},
    )
    return own


def _answer(said: Answer) -> Schema:
    answer: Schema = {"description": said.text}
    if said.bodies:
        answer["content"] = {media: {"schema": schema} for media, schema in said.bodies.items()}
    if said.headers or said.maybe:
        answer["headers"] = {
            name: {"description": text, "required": name in said.headers, "schema": TEXT}
            for name, text in {**said.maybe, **said.headers}.items()
        }
    return answer
