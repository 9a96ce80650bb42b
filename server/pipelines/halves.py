"""Half characters: JSON can name one half of a surrogate pair, but no text that holds it can be sent or said. Pure."""

import re

_LONE = re.compile("[\ud800-\udfff]")


def whole(text: str) -> str:
    """`text` with U+FFFD for each half of a character."""
    return _LONE.sub("\ufffd", text)
