"""Settings of the site: `python -m sphinx -W --keep-going -b html docs docs/_build/html`. Nothing is fetched."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for _site, which makes what is generated

import hardstep

project = "hardstep"
author = "The hardstep developers"
copyright = "The hardstep developers, Apache-2.0"
release = version = hardstep.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "_site.extension",
]
exclude_patterns = ["_build", "_site", "pictures", "examples/runs", "sg_execution_times.rst"]
exclude_patterns += ["examples/sg_execution_times.rst"]
default_role = "literal"
smartquotes_action = "D"  # dashes only: a prime is no apostrophe
toc_object_entries_show_parents = "hide"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_rtype = False
napoleon_preprocess_types = False

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "image_scrapers": ("_site.gallery.pictures",),
    "reset_argv": "_site.gallery.small",
    "reset_modules": (),
    "thumbnail_size": (640, 230),
    "within_subsection_order": "_site.gallery.Order",
    "download_all_examples": False,
    "show_memory": False,
    "plot_gallery": True,
    "only_warn_on_example_error": False,
    "abort_on_example_error": False,
}

html_theme = "furo"
html_title = "hardstep"
html_static_path = ["_static"]
html_css_files = ["hardstep.css"]
html_favicon = "_static/favicon.svg"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_logo": "logo-light.svg",
    "dark_logo": "logo-dark.svg",
    "sidebar_hide_name": True,
    "light_css_variables": {
        "color-brand-primary": "#1a4f8a",
        "color-brand-content": "#1a5fa8",
        "color-brand-visited": "#1a5fa8",
        "font-stack": "'Inter', 'Segoe UI', 'Helvetica Neue', Arial, sans-serif",
        "font-stack--monospace": "'JetBrains Mono', 'SF Mono', 'Cascadia Code', 'DejaVu Sans Mono', monospace",
    },
    "dark_css_variables": {
        "color-brand-primary": "#8ab8ea",
        "color-brand-content": "#8ab8ea",
        "color-brand-visited": "#8ab8ea",
    },
}
pygments_style = "friendly"
pygments_dark_style = "nord-darker"
