from __future__ import annotations

from hypothesis import settings

# No deadline: what is slow on a busy machine is not wrong.
settings.register_profile("data", deadline=None, max_examples=50)
settings.load_profile("data")
