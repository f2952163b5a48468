"""Objects that are never pickled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn, SupportsIndex


class Unpicklable:
    """What may hold secrets in plain text once it is pickled, and so is not."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} may hold secrets, and is not pickled")
