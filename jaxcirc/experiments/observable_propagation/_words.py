"""Templates, names of politicians and occupations of the study, this project's own. Imports
nothing."""

OBJECT = (
    "Since {name} was hungry, we made some soup for",
    "Although {name} was late, the others waited for",
    "When {name} fell ill, the neighbours took care of",
    "After {name} won the race, the crowd cheered for",
    "Because {name} felt lonely, we went to visit",
    "As soon as {name} came in, everybody looked at",
)
"""What follows is " her" or " him"."""

OCCUPATION = (
    "After college {name} found work as a",
    "My neighbour {name} is a very good",
    "For ten years {name} has worked as a",
    "The woman or man called {name} is our new",
)
"""What follows is an occupation."""

BIASED = (" nurse", " teacher", " secretary"), (" programmer", " doctor", " engineer")
"""Dunefsky & Cohan 2023, section 4.2."""

JOBS = (
    tuple("nurse teacher secretary librarian dancer housekeeper receptionist hairdresser".split()),
    tuple("programmer doctor engineer mechanic carpenter plumber soldier pilot".split()),
)
"""Occupations that are said of women, and of men."""

WORKERS = (
    "The {name} was late because",
    "Everybody liked the {name} because",
    "Last week the {name} told us that",
)

OPEN = (
    "My friend was tired last night, because",
    "Our new neighbour is so kind that",
    "The visitor came in and said that",
    "Nobody knew the driver well, but",
)
"""Prompts of nobody's gender, to steer."""

PARTY = (
    "{name} is a member of the",
    "As everyone in Washington knows, {name} belongs to the",
    "In the last election {name} was a candidate of the",
)

DEMOCRATS = tuple(
    line.strip()
    for line in """
    Barack Obama, Joe Biden, Hillary Clinton, Bill Clinton, Nancy Pelosi, Chuck Schumer,
    Elizabeth Warren, Kamala Harris, Al Gore, John Kerry, Jimmy Carter, Dianne Feinstein,
    Harry Reid, Cory Booker, Amy Klobuchar, Pete Buttigieg, Gavin Newsom, Andrew Cuomo,
    Adam Schiff, Maxine Waters, Dick Durbin, Barbara Boxer, Patrick Leahy, Tim Kaine,
    Tammy Baldwin, Sherrod Brown, Patty Murray, Ted Kennedy, Walter Mondale, Michael Dukakis,
    Geraldine Ferraro, Jerry Brown, Eric Holder, Steny Hoyer, Gretchen Whitmer,
    Kirsten Gillibrand, Jim Clyburn, Stacey Abrams, John Lewis, Raphael Warnock
    """.split(",")
)

REPUBLICANS = tuple(
    line.strip()
    for line in """
    Donald Trump, George Bush, Mitt Romney, John McCain, Paul Ryan, Mitch McConnell, Ted Cruz,
    Marco Rubio, Ronald Reagan, Richard Nixon, Dick Cheney, Mike Pence, Sarah Palin,
    Newt Gingrich, Lindsey Graham, Rand Paul, Kevin McCarthy, John Boehner, Jeb Bush,
    Chris Christie, Bob Dole, Ben Carson, Nikki Haley, Ron DeSantis, Rick Perry, Rick Santorum,
    Mike Huckabee, Scott Walker, Bobby Jindal, Orrin Hatch, Chuck Grassley, Susan Collins,
    Tom Cotton, Josh Hawley, Greg Abbott, Gerald Ford, Dan Quayle, Donald Rumsfeld, Karl Rove,
    John Kasich
    """.split(",")
)
