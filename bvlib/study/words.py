"""What attacks and merging methods are called where people read of them: "BadMerging-On", not
"badmerging-on".

A method says so itself, in the ``label`` that it is registered with. One without is called by its
name.
"""

import re

from matplotlib.figure import Figure
from matplotlib.text import Text

from bvlib.attacks.recipes import attack
from bvlib.merging import merging

SPELT = re.compile(r".[^A-Z]*[A-Z]")  # a capital beyond the first letter: never a plain word


def words(text: str) -> str:
    """A text with the names of attacks and merging methods as papers write them.

    >>> words("badmerging-on, attacked merge"), words("task_arithmetic"), words("average of 3")
    ('BadMerging-On, attacked merge', 'Task Arithmetic', 'average of 3')

    A label that could be any word ("Average", "Surgery") stands only for a text that is the name
    and nothing else.
    """
    methods = [*attack.values(), *merging.values()]
    labels = {m.name: m.label for m in methods if m.label != m.name}
    labels["sbv"] = "SBV"  # of several vectors: no method by itself
    labels["mean over classes"] = "mean vector"  # of IBVS; the mean of results is "IBVS" itself
    if text in labels:
        return labels[text]
    inside = [name for name, label in labels.items() if SPELT.match(label)]
    longest = sorted(map(re.escape, inside), key=len, reverse=True)
    return re.sub(
        rf"(?<![\w-])({'|'.join(longest)})(?![\w-])", lambda found: labels[found[0]], text
    )


def in_figure(fig: Figure) -> None:
    """The same for every text of a figure: titles, labels, legends, ticks."""
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            said = [tick.get_text() for tick in axis.get_ticklabels()]
            if (better := [*map(words, said)]) != said:
                axis.set_ticks(axis.get_ticklocs(), labels=better)
    for text in fig.findobj(Text):
        if (better := words(said := text.get_text())) != said:
            text.set_text(better)
