"""Small builders of XML elements: no policy here, only that whatever goes in comes out as that very text.

XML 1.0 has no way to write most control characters (https://www.w3.org/TR/xml/#charsets): a value with one is refused,
`printable` makes a text for display safe.
"""

import re
import xml.etree.ElementTree as ET

from cloud.common.driver import Rejected

Attribute = str | int | None

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(
    tag: str, *children: ET.Element | None, text: str | int | None = None, **attributes: Attribute
) -> ET.Element:
    """An element; attributes and children that are None are left out, a trailing `_` of a name too (`type_`).

    Raises Rejected (`illegal_character`) for a value that XML cannot hold.
    """
    made = ET.Element(tag, {k.rstrip("_"): _legal(str(v)) for k, v in attributes.items() if v is not None})
    if text is not None:
        made.text = _legal(str(text))
    made.extend(child for child in children if child is not None)
    return made


def printable(text: str) -> str:
    """One line of text that XML can hold: what it cannot becomes U+FFFD, line ends become spaces."""
    return _ILLEGAL.sub("\ufffd", re.sub(r"[\r\n\t]+", " ", text))


def document(root: ET.Element) -> str:
    """The XML text of an element."""
    return ET.tostring(root, encoding="unicode")


def _legal(value: str) -> str:
    if found := _ILLEGAL.search(value):
        raise Rejected("illegal_character", f"{value!r} holds the character {found.group()!r}, which is not allowed.")
    return value
