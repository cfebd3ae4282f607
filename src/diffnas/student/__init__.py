"""The student: its edits, its model, its pipeline folder."""
