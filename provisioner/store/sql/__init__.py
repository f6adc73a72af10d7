"""What the stores in SQL share: tables, rows, migrations and commits in groups."""
