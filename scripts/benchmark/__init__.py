"""What scripts/bench is made of: the servers it compares, the rows it measures, and how it shows them.

`processes` and `servers` start what is measured, `load` and `streams` ask, `results` says what a measurement is and `targets`
what is wanted of it; `table` and `chart` show both. Every other module measures some rows, each with one function
`measure(run, name)` that gives lines of the one table.
"""
