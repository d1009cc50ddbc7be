"""A campaign of faults against small trainings; see `__main__`."""
