"""Colours can be told apart and text on them can be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.report import palette


@given(st.sets(st.text(max_size=5), min_size=1, max_size=12), st.sampled_from(["primary", "harvest", "gpu", "foreign"]))
def test_each_name_has_its_own_shade_whatever_the_order(names: set[str], kind: str) -> None:
    shades = palette.shades(kind, names)
    assert set(shades) == names
    assert len(set(shades.values())) == len(names)
    assert palette.shades(kind, [*sorted(names, reverse=True), *names]) == shades


def test_families_do_not_meet() -> None:
    names = [str(i) for i in range(10)]
    every = [
        colour for kind in ("primary", "harvest", "gpu", "foreign") for colour in palette.shades(kind, names).values()
    ]
    assert len(set(every)) == 40
    assert palette.shades("primary", []) == {}


@pytest.mark.parametrize("kind", ["primary", "harvest", "gpu", "foreign"])
def test_text_on_a_shade_has_contrast(kind: str) -> None:
    """Contrast as WCAG 2.2 defines it, computed here on its own; 3 is its bound for large text."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    colours = palette.shades(kind, [str(i) for i in range(12)]).values()
    assert len(colours) == 12
    for colour in colours:
        dark, light = sorted((luminance(colour), luminance(palette.text_on(colour))))
        assert (light + 0.05) / (dark + 0.05) > 4.0


def test_faded_lets_the_page_through() -> None:
    assert palette.faded("#102030", 0.5) == "rgba(16,32,48,0.5)"
