"""How a level alpha is spent over a sequence of candidates, so that all wrong promotions together keep to it."""

from __future__ import annotations

from math import comb

from rounds.core.errors import Fault, OurFault


def alpha_of(j: int, alpha: float) -> float:
    """The level of the j-th candidate, j from 1, on data of its own: alpha / (j (j + 1)), which sums to alpha."""
    if j < 1:
        raise OurFault("no such candidate", [Fault("candidates are counted from 1", "spending", "1 or more", str(j))])
    return alpha / (j * (j + 1))


def sealed_alpha(j: int, b: int, alpha: float) -> float:
    """The level of the j-th candidate, after b of the j - 1 before it were promoted, on one sealed test set.

    A maker who sees only passed or refused can, before candidate j, be in one of C(j - 1, b) histories with b
    promotions, each of which may lead to another candidate. alpha * 2^-(b + 1) / (j (j + 1) C(j - 1, b)) is a level for
    each, and all of them together sum to at most alpha over j and b.
    """
    if not 0 <= b < j:
        fault = Fault("promotions lie between 0 and the candidates before", "spending", f"0..{j - 1}", str(b))
        raise OurFault("no such candidate", [fault])
    return float(alpha_of(j, alpha) / (comb(j - 1, b) << (b + 1)))
