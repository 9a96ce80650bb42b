"""The delay pattern as an automaton: a stream's phase says what each codebook may say next, and a row moves it on.

In numbers that are looked up, so that a row on a card needs no rules: where codebooks have not begun, only BOS; after
the first EOS, one codebook more in every row, only EOS."""

import numpy as np

from server.pipelines.tts._higgs.delay import BOOKS, BOS, EOS, Codes

CODES = 1026
ENDINGS = BOOKS + 1


def phase(rows: Codes) -> int:
    """The phase of a stream that has made `rows` [R, 8], of which the first says BOS in every codebook."""
    ends = np.flatnonzero((rows == EOS).any(axis=1))
    return int(_phase(len(rows), len(rows) - int(ends[0]) if len(ends) else 0))


def bounds() -> Codes:
    """For every phase the least and the largest code that may be said [phases, 2, 8]."""
    begun, ended = _parts()
    books = np.arange(BOOKS)
    made = np.stack([np.zeros((len(begun), BOOKS), np.int64), np.full((len(begun), BOOKS), EOS)], 1)
    made[(books < ended[:, None])[:, None].repeat(2, 1)] = EOS
    made[(books >= begun[:, None])[:, None].repeat(2, 1)] = BOS
    return made


def following() -> Codes:
    """For every phase and the largest code of the row that was made in it, the next phase [phases, codes]."""
    begun, ended = _parts()
    going, ending = (_phase(begun + 1, ended + past) for past in (ended > 0, 1))
    made = np.repeat(going[:, None], CODES, axis=1)
    made[:, EOS] = ending
    return made


def _parts() -> tuple[Codes, Codes]:
    """For every phase how many codebooks have begun, and how many have ended."""
    begun, ended = np.divmod(np.arange(ENDINGS * ENDINGS), ENDINGS)
    return begun, ended


def _phase(begun: Codes | int, ended: Codes | int) -> Codes:
    """Any larger number is as good as all codebooks."""
    made: Codes = np.minimum(begun, BOOKS) * ENDINGS + np.minimum(ended, BOOKS)
    return made
