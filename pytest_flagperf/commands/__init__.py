"""The commands of ``flagperf``, a module each: ``add`` declares one, and it imports what it needs when it runs."""
