"""How annotations are checked while tests run."""

import beartype

checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
"""As type checkers do, an integer passes for a float, and a float for a complex number."""
