"""Settings of the site that `make docs` builds of these pages."""

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "metarec_jax"
copyright = "the authors of metarec_jax; Apache-2.0"
release = version = importlib.metadata.version("metarec_jax")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "generated_pages", "mathml"]
source_suffix = {".md": "myst-nb", ".myst": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "_extensions"]
nitpicky = False
default_role = "code"  # docstrings write names of the package as `name`
add_module_names = False
toc_object_entries = False

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # `make docs` executes the notebooks
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
suppress_warnings = ["myst.header"]  # pages of results begin their tables below a title of the page that prints them

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # an attribute is described once: below its class, or in the class's docstring

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "metarec_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
