"""Word lists of the tasks. Each task keeps the words that are single tokens. Imports nothing."""

MEN = tuple(
    """
    Adam Alan Andrew Anthony Arthur Ben Brian Carl Charles Chris Daniel David Edward Eric Frank Fred
    Gary George Harry Henry Howard Jack James Jason Joe John Joseph Keith Kevin Larry Louis Luke
    Martin Matthew Michael Nathan Oliver Oscar Patrick Paul Peter Philip Richard Robert Roger Ryan
    Samuel Scott Simon Stephen Steven Thomas Tom Tony Vincent Walter William
    """.split()
)
"""First names of men that are no common words."""

WOMEN = tuple(
    """
    Alice Amanda Amy Andrea Angela Anna Anne Barbara Betty Carol Catherine Charlotte Claire Diana
    Dorothy Eleanor Elizabeth Ellen Emily Emma Hannah Helen Jane Jennifer Jessica Joan Julia Julie
    Karen Kate Kelly Laura Linda Lisa Louise Lucy Margaret Maria Martha Mary Melissa Michelle Molly
    Nancy Nicole Olivia Patricia Rachel Rebecca Ruth Sandra Sarah Sharon Sophie Susan
    """.split()
)
"""First names of women that are no common words."""

NAMES = MEN + WOMEN
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

COLOURS = tuple("red blue green black white brown yellow purple pink gray silver gold".split())
"""Colours, all with the article "a"."""

PEOPLE = tuple(
    tuple(line.split())
    for line in """
    teacher teachers
    doctor doctors
    student students
    friend friends
    parent parents
    worker workers
    artist artists
    farmer farmers
    writer writers
    singer singers
    driver drivers
    lawyer lawyers
    soldier soldiers
    scientist scientists
    manager managers
    author authors
    actor actors
    officer officers
    engineer engineers
    woman women
    man men
    child children
    king kings
    girl girls
    boy boys
    player players
    leader leaders
    member members
    neighbor neighbors
    guest guests
    customer customers
    brother brothers
    sister sisters
    mother mothers
    father fathers
    son sons
    daughter daughters
    painter painters
    dancer dancers
    nurse nurses
    """.strip().splitlines()
)
"""(singular, plural) of nouns for people. Position in the list decides the split by lexeme."""

EVENTS = tuple(
    """
    war siege trial project voyage journey survey drought conflict dispute campaign festival study
    exhibition reign expedition strike famine
    """.split()
)
"""What begins in one year and ends in another."""

ARGUMENTS = tuple(
    """
    size path name mode data file value index user port message result node count image label
    option table query text order state line token source target model status code
    """.split()
)
"""Names of a function's arguments."""

REMARKS = tuple(
    """
    river music paper winter summer garden metal history village story letter picture window
    mountain bridge weather animal coffee dinner market
    """.split()
)
"""Words that fill a docstring and mean nothing there."""
