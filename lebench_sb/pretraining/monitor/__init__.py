"""A run watched while it goes on: alarms, probes of the encoder, figures, the dashboard."""
