"""One script per claim; each prints a table and writes its figures to benchmarks/results/ as JSON."""
