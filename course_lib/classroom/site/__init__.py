"""The site: executed notebooks, `docs/`, the data cards and the docstrings, made into pages by Sphinx.

`build` lays out a copy of the repository's own tree, so that a link that works on the repository's pages works here;
`notebooks`, `gallery`, `reference` and `references` make what is written nowhere by hand; `look` opens the pages.
"""

#: Beside the sources: where the notebooks use each function, written by `reference` and read by `extension`.
USES = "uses.json"
