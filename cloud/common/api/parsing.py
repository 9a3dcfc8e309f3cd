"""Reading a request's body: one JSON document, and nothing in it that PostgreSQL or a later reader would choke on."""

import json
from typing import Any, NoReturn

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer


class JsonParser(BaseParser):
    """UTF-8 JSON. Refuses NaN and Infinity, NUL characters, lone surrogates, endless nesting and oversized bodies."""

    media_type = "application/json"
    renderer_class = JSONRenderer

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        raw = stream.read() if limit is None else stream.read(limit + 1)
        if limit is not None and len(raw) > limit:
            raise RequestDataTooBig
        try:
            text = raw.decode("utf-8")
            document = json.loads(text, parse_constant=_refuse)
            if "\\u" in text:
                _check_characters(document)
        except RecursionError:
            raise ParseError(_("The JSON is nested too deeply.")) from None
        except ValueError as error:
            raise ParseError(_("This is not JSON: %(error)s") % {"error": error}) from None
        return document


class JsonOnly(BaseContentNegotiation):
    """The API speaks JSON whatever a client says it accepts; it must be sent JSON."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        sent = request.content_type.partition(";")[0].strip().lower()
        for parser in parsers:
            if parser.media_type == sent:
                return parser
        raise UnsupportedMediaType(request.content_type)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


def _refuse(constant: str) -> NoReturn:
    raise ValueError(_("%(constant)s is not a JSON number") % {"constant": constant})


def _check_characters(value: Any) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError(_("a text holds a NUL character"))
        value.encode("utf-8")  # a lone surrogate cannot be encoded: UnicodeEncodeError is a ValueError
    elif isinstance(value, list):
        for item in value:
            _check_characters(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_characters(key)
            _check_characters(item)
