"""Well-known facts, and sentences that ask for them. Imports nothing.

Compiled by hand: each relation has sentences, and lines of "subject | object".
"""

from typing import NamedTuple


class Relation(NamedTuple):
    """Sentences with a place for {subject}, and (subject, object) pairs."""

    templates: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    rows = (line.split(" | ") for line in text.strip().splitlines())
    return tuple((subject.strip(), object.strip()) for subject, object in rows)


def _column(number: int) -> tuple[tuple[str, str], ...]:
    rows = [line.split(" | ") for line in _COUNTRIES.strip().splitlines()]
    pairs = ((row[0].strip(), row[number].strip()) for row in rows)
    return tuple((subject, object) for subject, object in pairs if object != "-")


_COUNTRIES = """
    France | Paris | French | Europe
    Germany | Berlin | German | Europe
    Italy | Rome | Italian | Europe
    Spain | Madrid | Spanish | Europe
    Portugal | Lisbon | Portuguese | Europe
    Poland | Warsaw | Polish | Europe
    Russia | Moscow | Russian | -
    Greece | Athens | Greek | Europe
    Sweden | Stockholm | Swedish | Europe
    Norway | Oslo | Norwegian | Europe
    Denmark | Copenhagen | Danish | Europe
    Finland | Helsinki | Finnish | Europe
    Austria | Vienna | German | Europe
    Hungary | Budapest | Hungarian | Europe
    Romania | Bucharest | Romanian | Europe
    Bulgaria | Sofia | Bulgarian | Europe
    Ukraine | Kyiv | Ukrainian | Europe
    Ireland | Dublin | - | Europe
    England | London | English | Europe
    Scotland | Edinburgh | - | Europe
    Turkey | Ankara | Turkish | -
    Japan | Tokyo | Japanese | Asia
    China | Beijing | Chinese | Asia
    Thailand | Bangkok | Thai | Asia
    Vietnam | Hanoi | Vietnamese | Asia
    Iran | Tehran | Persian | Asia
    Iraq | Baghdad | Arabic | Asia
    Syria | Damascus | Arabic | Asia
    Egypt | Cairo | Arabic | Africa
    Kenya | Nairobi | - | Africa
    Cuba | Havana | Spanish | -
    Peru | Lima | Spanish | -
    Chile | Santiago | Spanish | -
    Brazil | Brasília | Portuguese | -
    Canada | Ottawa | - | -
"""
"""Country, capital, language, continent; "-" where there is no single answer of one word."""

_CITIES = """
    Munich | Germany
    Hamburg | Germany
    Lyon | France
    Marseille | France
    Milan | Italy
    Florence | Italy
    Venice | Italy
    Barcelona | Spain
    Seville | Spain
    Osaka | Japan
    Kyoto | Japan
    Shanghai | China
    Mumbai | India
    Delhi | India
    Toronto | Canada
    Vancouver | Canada
    Sydney | Australia
    Melbourne | Australia
    Istanbul | Turkey
    Luxor | Egypt
"""

_MAKERS = """
    Toyota | Japan
    Honda | Japan
    Sony | Japan
    Nintendo | Japan
    Volkswagen | Germany
    Siemens | Germany
    BMW | Germany
    Rolex | Switzerland
    Nestle | Switzerland
    Renault | France
    Ferrari | Italy
    Fiat | Italy
    Volvo | Sweden
    Ikea | Sweden
    Nokia | Finland
"""

RELATIONS = {
    "capital": Relation(
        (
            "The capital of {subject} is",
            "The capital city of {subject} is the city of",
            "I flew to the capital of {subject}, the city of",
        ),
        _column(1),
    ),
    "language": Relation(
        (
            "In {subject}, most people speak",
            "The official language of {subject} is",
            "Children in {subject} grow up speaking",
        ),
        _column(2),
    ),
    "continent": Relation(
        (
            "On the map, {subject} is a country in",
            "The country of {subject} belongs to the continent of",
        ),
        _column(3),
    ),
    "city": Relation(
        (
            "The city of {subject} is located in the country of",
            "We went on holiday to {subject}, a large city in",
        ),
        _pairs(_CITIES),
    ),
    "maker": Relation(
        (
            "The company {subject} was founded in the country of",
            "The headquarters of {subject} are in the country of",
        ),
        _pairs(_MAKERS),
    ),
}
"""Relations by name."""
