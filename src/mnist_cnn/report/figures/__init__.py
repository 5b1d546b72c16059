"""Numbers to figures: each function draws one picture and returns it; ``style.save`` writes it.

Drawn without pyplot, so nothing here has global state. One colour, marker and dash a model, everywhere;
lightness differs too, so that the curves can be told apart in grey. Any number of models, with names of any
length, fits: headings and legends wrap, pictures grow, and labels make way for each other. A heading claims what the
95 % intervals bear; where they overlap, it names what is shown.
"""
