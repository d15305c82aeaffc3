"""The serving process: its life, signals, systemd and logs."""
