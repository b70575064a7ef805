"""What must hold of the text in any figure."""

import itertools

from matplotlib.text import Text


def assert_text_is_legible(figure):
    """Draw a figure; no text may overlap another one or leave the paper.

    The boxes of slanted texts overlap where the texts do not, so they are not compared.
    """
    figure.draw_without_rendering()
    undrawn = set(_labels_beyond_the_axes(figure))
    boxes = [
        (text, text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and text not in undrawn
    ]
    assert boxes
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        if not one.get_rotation() % 90 and not other.get_rotation() % 90:
            assert not a.overlaps(b), (one, other)
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text


def _labels_beyond_the_axes(figure):
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    yield from (tick.label1, tick.label2)
