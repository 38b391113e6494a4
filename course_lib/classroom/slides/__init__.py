"""A deck of slides for every notebook: reveal.js, offline, with the prose as speaker notes.

``points`` decides what of a markdown cell is projected, ``deck`` lays it out on slides, ``page`` writes the page,
``look`` opens it in a real browser, photographs every slide and complains about what is cut off or too small.
"""
