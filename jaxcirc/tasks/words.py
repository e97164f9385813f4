"""Word lists of the tasks. Each task keeps the words that are single tokens. Imports nothing."""

NAMES = tuple(
    """
    Adam Alan Andrew Anthony Arthur Ben Brian Carl Charles Chris Daniel David Edward Eric Frank Fred
    Gary George Harry Henry Howard Jack James Jason Joe John Joseph Keith Kevin Larry Louis Luke
    Martin Matthew Michael Nathan Oliver Oscar Patrick Paul Peter Philip Richard Robert Roger Ryan
    Samuel Scott Simon Stephen Steven Thomas Tom Tony Vincent Walter William
    Alice Amanda Amy Andrea Angela Anna Anne Barbara Betty Carol Catherine Charlotte Claire Diana
    Dorothy Eleanor Elizabeth Ellen Emily Emma Hannah Helen Jane Jennifer Jessica Joan Julia Julie
    Karen Kate Kelly Laura Linda Lisa Louise Lucy Margaret Maria Martha Mary Melissa Michelle Molly
    Nancy Nicole Olivia Patricia Rachel Rebecca Ruth Sandra Sarah Sharon Sophie Susan
    """.split()
)
"""First names that are no common words."""

PLACES = tuple(
    """
    market garden station library school museum kitchen office theatre bakery harbour farm park
    hospital hotel restaurant church castle village studio gym airport cabin garage workshop
    """.split()
)
"""Places that one can be at, near or inside, and leave."""

OBJECTS = tuple(
    """
    book letter key ticket map lamp coat drink ring basket pencil camera cup hat sandwich flower
    watch coin bottle blanket radio bell bag box ball photo necklace cake card pen gift rope jacket
    plate painting cookie
    """.split()
)
"""Things to hand over, all with the article "a"."""
