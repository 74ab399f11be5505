"""Devices: what a vendor's hardware is, which of it is there, and who may use it now."""
