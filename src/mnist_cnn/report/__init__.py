"""From measurements to tables, their analysis, and figures."""
