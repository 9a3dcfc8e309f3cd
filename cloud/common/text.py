"""Texts with values in them, that keep every language until somebody reads them."""

from typing import Any

from django.utils.functional import lazy


def filled(text: Any, **values: Any) -> Any:
    """A lazy translation with its `%(name)s` filled in, in the language of whoever reads it.

    `_("…") % {…}` would settle on one language at once, that of the process it is written in.
    """
    return lazy(lambda: str(text) % values, str)()
