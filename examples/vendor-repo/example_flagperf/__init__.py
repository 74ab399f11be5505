"""What the maker of the example chip adds to pytest-flagperf: every directory here with a vendor.toml is a vendor."""
