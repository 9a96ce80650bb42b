"""What somebody sent, as an error names it: enough of it to know it by, however much it was. Pure."""

MOST = 80  # characters


def quoted(value: object) -> str:
    """`value` in quotes, as Python writes it."""
    return repr(brief(value)) if isinstance(value, str) else brief(repr(value))


def brief(text: str) -> str:
    """`text` as it stands, or its beginning."""
    return text if len(text) <= MOST else text[: MOST - 1] + "…"
