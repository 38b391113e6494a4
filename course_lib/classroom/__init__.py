"""What stands around the method in a classroom: sessions, results, figures, widgets, the runner of notebooks."""
