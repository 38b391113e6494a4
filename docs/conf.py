"""Sphinx's settings for the site; `python -m course_lib site` lays out the sources and calls it (docs/README.md)."""

import course_lib

project = "Why and how to prune a neural network"
author = "The course authors"
copyright = f"{author}, MIT licence"
release = course_lib.__version__

extensions = [
    "myst_nb",  # executed notebooks and Markdown
    "sphinx.ext.autodoc",  # the library's pages, from its docstrings
    "sphinx.ext.napoleon",  # which are in Google's style
    "sphinx.ext.viewcode",  # the source beside them, inside the site
    "sphinx_design",  # cards
    "course_lib.classroom.site.extension",  # equation numbers, links from the library to the notebooks
]
exclude_patterns = ["README.md"]  # included in index.md

# Notebooks were executed before (by papermill, or by the builder): Sphinx only reads them.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# In docstrings `name` is code, not a title.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # fields of a class as a list
napoleon_use_rtype = False
add_module_names = False

# Nothing comes from outside: MathJax lies beside the pages, brought by npm (course_lib/classroom/vendor.py).
mathjax_path = "mathjax/tex-chtml.js"
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}  # light or dark as the reader's system; without it the theme complains
html_theme_options = {
    "repository_url": course_lib.REPOSITORY,
    "repository_branch": "main",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": False,
    "navbar_persistent": [],  # the search field stands in the sidebar
    "launch_buttons": {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    },
    # Both with the contrast that WCAG 2.1 AA asks for.
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
