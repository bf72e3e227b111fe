"""Which films of a data set show one picture, exactly or nearly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rounds.data import near
from rounds.data.take import Taken
from rounds.imaging.decode import decode
from rounds.imaging.likeness import Likeness, Look, Pixels, signatures
from rounds.imaging.packed import ADMITTED

# Gray levels within which the means of 32 x 32 cells lie where a film shows nothing; no copies are looked for then.
BLANK = 6.0


@dataclass(frozen=True)
class Copies:
    """What was found alike: by digest of pixels the picture that they show, and how two differ that were compared.

    Films of equal pixels need no entry. `unsearched` comparisons were left out because too many films look alike.
    """

    pictures: Mapping[str, str] = field(default_factory=dict)
    compared: Mapping[tuple[str, str], Likeness] = field(default_factory=dict)
    unsearched: int = 0

    def picture(self, film: Taken) -> str:
        """A name that films which show one picture share."""
        return self.pictures.get(film.pixels, film.pixels)

    def how(self, one: Taken, other: Taken) -> str:
        """What was done to the one to get the other, in words."""
        if one.pixels == other.pixels:
            return "the same pixels"
        low, high = sorted((one.pixels, other.pixels))
        alike = self.compared.get((low, high))
        if alike is None:
            return "alike through other films"
        return str(alike if one.pixels == low else alike._replace(shift=-alike.shift))


def find_copies(films: Sequence[Taken], read: Callable[[Taken], bytes]) -> Copies:
    """Search for near copies; the order of the films makes no difference. Raises what `read` raises."""
    unique = sorted({film.pixels: film for film in films}.items())
    looks = [film.look for _, film in unique]
    found = near.find(
        signatures(looks), np.array([is_blank(look) for look in looks], bool), lambda i: _pixels(unique[i][1], read)
    )
    keys = [key for key, _ in unique]
    groups = near.groups(len(unique), [(pair.one, pair.other) for pair in found.pairs])
    pictures = {keys[index]: keys[group[0]] for group in groups for index in group}
    compared = {(keys[pair.one], keys[pair.other]): pair.likeness for pair in found.pairs}
    return Copies(pictures, compared, found.unsearched)


def is_blank(look: Look) -> bool:
    """Whether a film shows nothing."""
    return look.span <= BLANK


def _pixels(film: Taken, read: Callable[[Taken], bytes]) -> Pixels:
    return decode(read(film), ADMITTED)
