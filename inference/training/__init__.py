"""How the shipped network is made: synthetic ears drawn without end, scanned anew at every step.

`crops` draws anatomy, `scans` gives it gray values, `losses` says what is wanted, `trainer` repeats. The serving code
never imports any of it.
"""
