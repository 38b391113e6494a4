"""What tests of figures share."""

import io


def drawn(figure):
    """The figure, after it was drawn as a picture that is not empty."""
    with io.BytesIO() as png:
        figure.savefig(png, format="png")
        assert len(png.getvalue()) > 10_000
    return figure
