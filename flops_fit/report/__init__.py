"""Results and plans for people: text, tables, plots and the HTML report."""
