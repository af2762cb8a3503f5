"""The fields of a request, from JSON or from a form; an image comes in the body, and is fetched from nowhere."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from fv_serve.asking import Fields
from fv_serve.problems import bad_value

_MOST_FIELDS = 50
_IMAGE = "input_reference"


async def fields_of(request: Request) -> Fields:
    """Raises ApiError, status 400, if the body is neither JSON nor a form, or holds no image where it should."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return await _of_form(request)
    if kind != "application/json":
        raise bad_value("body", f"the body is {kind[:100]!r}; send application/json or multipart/form-data")
    return _of_json(await request.body())


def _of_json(body: bytes) -> Fields:
    try:
        values = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise bad_value("body", f"the body is no JSON: {error}"[:300]) from error
    if not isinstance(values, dict):
        raise bad_value("body", "the body must be an object with a prompt")
    image = values.get(_IMAGE)
    return Fields(values, None if image is None else _image_in_json(image), from_form=False)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


async def _of_form(request: Request) -> Fields:
    try:
        form = await request.form(max_files=1, max_fields=_MOST_FIELDS)
    except (HTTPException, ValueError, KeyError, TypeError, AssertionError, LookupError) as error:
        detail = getattr(error, "detail", error)
        raise bad_value("body", f"the body is no form: {detail}"[:300]) from error
    try:
        return await _fields(form)
    finally:
        await form.close()


async def _fields(form: FormData) -> Fields:
    values: dict[str, Any] = {}
    image = None
    for name, value in form.multi_items():
        if name in values:
            raise bad_value(name[:100], f"{name[:100]!r} is given twice")
        values[name] = "(a file)" if isinstance(value, UploadFile) else value
        if isinstance(value, UploadFile):
            if name != _IMAGE:
                raise bad_value(name[:100], f"{name[:100]!r} is a file; only {_IMAGE} may be one")
            image = await value.read()
        elif name == _IMAGE:
            image = _decoded(value)
    return Fields(values, image, from_form=True)


def _image_in_json(given: Any) -> bytes:
    """An image as OpenAI's API has it in JSON: {"image_url": "data:image/png;base64,…"}, or that text alone."""
    if isinstance(given, dict):
        if set(given) - {"image_url"}:
            raise bad_value(_IMAGE, f"{_IMAGE} may hold image_url alone, not {', '.join(map(str, given))[:100]!r}")
        given = given.get("image_url")
    if not isinstance(given, str):
        raise bad_value(_IMAGE, f"{_IMAGE} must be an image in the body: a file of a form, or a data: URL")
    return _decoded(given)


def _decoded(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64") or not comma:
        raise bad_value(
            _IMAGE,
            f"{_IMAGE} must be an image in the body, as a file of a form or as data:image/…;base64,…; nothing is "
            f"fetched from an address such as {url[:60]!r}",
        )
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_value(_IMAGE, f"{_IMAGE} is not base64: {error}") from error
