"""How everything is shown: numbers as text, tables as HTML, and where lines for the user go."""
