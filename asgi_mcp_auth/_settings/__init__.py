"""Plain values (a mapping, a TOML file, the environment) read into configuration values."""
