"""Characters that are not to be said: an engine would read out their names. Pure."""

from collections.abc import Callable, Mapping


class Silenced(dict[int, str | int]):
    """A table for `str.translate`, filled as characters come: a space for each that is `silent`. `known`: what others
    are to be said as, by their codes."""

    def __init__(self, silent: Callable[[str], bool], known: Mapping[int, int] = {}) -> None:
        super().__init__(known)
        self._silent = silent

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = said = " " if self._silent(char) else char
        return said
