"""Colours: few, told apart by colour-blind readers, each with a twin for dark pages.

The role colours (ink, muted, ...) are replaced on a dark page by `DARK`; the colours of the data are
mid-tones that stand on both. Families follow Okabe and Ito (blue, orange, bluish green, reddish purple); red is
kept for what went wrong.
"""

from collections.abc import Iterable

INK = "#1d2630"
MUTED = "#66717e"
GRID = "#e3e7ec"
LANE = "#f3f5f7"
SURFACE = "#ffffff"
BAD = "#c81e2b"
GOOD = "#0b7a55"
BLUE = "#2b6cb0"
PALE_BLUE = "#a9bfd6"
ORANGE = "#d98200"
GREEN = "#12946a"

HEAT = ("#f6f7f9", "#fbe0b3", "#f2a541", "#cf5f1e", "#8a2a1c")
"""From no slowdown to the worst."""
_DARK_HEAT = ("#222a33", "#4d4030", "#96651f", "#dd7a2c", "#ffb38a")

DARK = {
    INK: "#e6eaef",
    MUTED: "#98a4b1",
    GRID: "#323b46",
    LANE: "#20272f",
    SURFACE: "#171c22",
    BAD: "#ff6b70",
    GOOD: "#3fc898",
    BLUE: "#5fa0e0",
    PALE_BLUE: "#42566b",
    ORANGE: "#eda53c",
    GREEN: "#35b88a",
    **dict(zip(HEAT, _DARK_HEAT, strict=True)),
}
"""The dark twin of every role colour."""

_FAMILIES = {
    "primary": ("#1f4e8c", "#3a7bc8", "#56a8d8", "#8fc1ea"),
    "harvest": ("#9c5a00", "#d07f0a", "#eaa43a", "#f2c879"),
    "gpu": ("#0c6b52", "#1d9a76", "#5fbd93", "#9ad6b5"),
}
_OTHER_FAMILY = ("#6b3f7d", "#a05fae", "#c68fcd", "#deb9e2")


def shades(kind: str, names: Iterable[str]) -> dict[str, str]:
    """Give each name its own shade of the family of `kind`, the same for the same set of names.

    Args:
        kind: `primary`, `harvest` and `gpu` have their families; everything else shares a fourth.
        names: Applications, in any order, repeated or not.

    Returns:
        `#rrggbb` for each name. Neighbours in the alphabet are far apart in shade.
    """
    ordered = sorted(set(names))
    anchors = _FAMILIES.get(kind, _OTHER_FAMILY)
    if len(ordered) < 2:
        return dict.fromkeys(ordered, anchors[1])
    spread = ordered[::2] + ordered[1::2]
    places = {name: index / (len(spread) - 1) for index, name in enumerate(spread)}
    return {name: _between(anchors, places[name]) for name in ordered}


def faded(colour: str, alpha: float) -> str:
    """Return a colour as `rgba(...)`, so that the page shows through it."""
    red, green, blue = _rgb(colour)
    return f"rgba({red},{green},{blue},{alpha:g})"


def text_on(colour: str) -> str:
    """Return black or white, whichever is read better on a colour (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(colour))]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#101418" if luminance > 0.19 else "#fdfdfd"


def _between(anchors: tuple[str, ...], place: float) -> str:
    """Interpolate along the anchors, `place` in [0, 1]."""
    scaled = place * (len(anchors) - 1)
    index = min(int(scaled), len(anchors) - 2)
    share = scaled - index
    pairs = zip(_rgb(anchors[index]), _rgb(anchors[index + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
