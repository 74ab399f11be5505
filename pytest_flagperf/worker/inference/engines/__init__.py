"""The engines that ship with the plugin, a file each. Nothing heavy is imported before one is used."""
