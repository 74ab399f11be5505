"""Is it good enough, and is it worse than before? Statistics over rounds, baselines, curves, derived figures."""
