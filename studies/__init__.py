"""Several trainings, one table: what no single run can say."""
