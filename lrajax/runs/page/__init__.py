"""What the report of a run shows: measures, figures, the page."""
