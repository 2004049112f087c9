"""What every test shares: how many examples hypothesis tries, chosen by `HYPOTHESIS_PROFILE`."""

import os

from hypothesis import HealthCheck, settings

# The fast part of `make test` has to stay fast: few examples, the same ones each time. The change stream's state
# machine asks for more itself. `make prove` looks for new ones.
settings.register_profile("default", max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)
settings.register_profile(
    "prove",
    max_examples=2_000,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
