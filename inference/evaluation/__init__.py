"""How well ears are measured, against known truth: scores per ear, statistics per group, figures, report, model card.

Nothing here is imported by the serving code. `scores` judges one ear, `statistics` groups of ears, `evaluation` is the
record that everything shown is made from.
"""
