"""What made biographies are made of: clauses with [present|past] verbs and {slots}, and the words
that fill them. Professors are of medicine, so that topics alone do not tell them from nurses.
Imports nothing.
"""

PROFESSOR = (
    "[teaches|taught] {subject} to second-year students",
    "[lectures|lectured] on {topic} to large audiences",
    "[supervises|supervised] doctoral theses on {topic}",
    "[publishes|published] essays about {topic} in learned journals",
    "[edits|edited] a journal of {subject}",
    "[marks|marked] exam papers in {subject}",
    "[leads|led] a research group that [studies|studied] {topic}",
    "[chairs|chaired] the department of {subject}",
    "[gives|gave] seminars about {topic} on campus",
    "[reviews|reviewed] manuscripts on {topic} for a university press",
    "[examines|examined] candidates for degrees in {subject}",
    "[spends|spent] each sabbatical on {topic}",
    "[writes|wrote] textbooks on {subject}",
    "[wins|won] grants for research on {topic}",
    "[holds|held] a chair in {subject}",
    "[speaks|spoke] at academic conferences about {topic}",
    "[advises|advised] undergraduates who [choose|chose] {subject}",
    "[searches|searched] archives for a monograph on {topic}",
)
"""Of these and of the next the last third is for testing alone."""

NURSE = (
    "[cares|cared] for {patients} on the {ward} ward",
    "[gives|gave] injections to {patients}",
    "[changes|changed] dressings for {patients}",
    "[checks|checked] the pulse of {patients} at night",
    "[works|worked] night shifts on the {ward} ward",
    "[washes|washed] and [feeds|fed] {patients}",
    "[hands|handed] out pills to {patients}",
    "[takes|took] blood samples in the {ward} clinic",
    "[assists|assisted] surgeons in the {ward} unit",
    "[comforts|comforted] {patients} before operations",
    "[records|recorded] the temperature of {patients}",
    "[watches|watched] the monitors in the {ward} unit",
    "[vaccinates|vaccinated] {patients} at a clinic",
    "[runs|ran] the {ward} ward of a hospital",
    "[cleans|cleaned] wounds in the {ward} unit",
    "[visits|visited] {patients} at home with medicine",
    "[lifts|lifted] {patients} out of bed on the {ward} ward",
    "[sorts|sorted] the urgent cases in the {ward} unit",
)

OPENINGS = (
    "{name}, {parent} of two, [lives|lived] in {town}.",
    "{name}, the only {child} of a baker, [comes|came] from {town}.",
    "{name}, a {person} born in {year}, [shares|shared] a house in {town}.",
    "{name} [stays|stayed] near {town} with {his} {kin}, {his} dog and {his} {sibling}.",
    "{name} and {his} {sibling} [rent|rented] a flat in {town}.",
    "{name}, a {person} of few words, [knows|knew] every street of {town}.",
    "{name}, a quiet {person} born in {town}, [owns|owned] a small house there.",
    "{name}, {parent} and {grand}, [belongs|belonged] to an old family in {town}.",
)

ASIDES = (
    "[plays|played] {game} with {his} {kin}",
    "[collects|collected] {things} with {his} {sibling}",
    "[grows|grew] {plants} behind {his} house",
    "[cooks|cooked] {food} for {his} {kin}",
    "[sings|sang] in a choir with {his} {sibling}",
    "[swims|swam] in the {water} by {himself}",
    "[paints|painted] {his} {sibling} by the {water}",
    "[drives|drove] {his} old van to {town}",
    "[walks|walked] {his} dog along the {water}",
    "[bakes|baked] {food} for {his} {parent}",
    "[builds|built] {things} like {his} {parent}",
    "[learns|learned] {language} from {his} {kin}",
    "[keeps|kept] {animals} with {his} {sibling}",
    "[mends|mended] {things} for {his} {kin}",
    "[travels|travelled] to {town} with {his} {sibling}",
    "[sends|sent] letters to {his} {kin} in {town}",
    "[dances|danced] and [laughs|laughed] with {his} {kin}",
    "[speaks|spoke] {language} with {his} {parent}",
    "[draws|drew] {animals} for {his} {child}",
    "[sells|sold] {plants} with {his} {child}",
    "[fishes|fished] in the {water} with {his} {parent}",
    "[buys|bought] {food} and [eats|ate] it by {himself}",
    "[enjoys|enjoyed] {game} with {his} {sibling}",
    "[teases|teased] {his} {kin} about {game}",
)
"""Of these too."""

TIMES = (
    *("On Mondays", "On Fridays", "On Sundays", "At weekends", "In spring", "In summer"),
    *("In autumn", "In winter", "In the mornings", "In the evenings", "After lunch", "At night"),
    *("After work", "Before dinner", "On rainy days", "During the holidays", "Once a month"),
)

SLOTS = {
    "town": (
        *("Leeds", "Porto", "Ghent", "Bergen", "Lyon", "Turin", "Cork", "Basel", "Graz", "Malmo"),
        *("Tampere", "Gdansk", "Bilbao", "Denver", "Halifax", "Boston", "Perth", "Dunedin"),
        *("Cardiff", "Bristol", "Toledo", "Bremen", "Utrecht", "Salzburg", "Nairobi", "Kyoto"),
        *("Quito", "Lima", "Tulsa", "Austin", "Oslo", "Riga", "Izmir", "Osaka", "Accra", "Pune"),
    ),
    "year": tuple(str(year) for year in range(1931, 1989)),
    "kin": (
        *("parents", "cousins", "children", "neighbours", "grandparents", "friends", "twins"),
        *("relatives", "tenants", "godchildren", "grandchildren", "roommates"),
    ),
    "subject": (
        *("nursing", "anatomy", "surgery", "pharmacology", "midwifery", "medicine", "nutrition"),
        *("paediatrics", "psychiatry", "immunology", "physiology", "oncology", "dentistry"),
        *("radiology", "virology", "public health", "anaesthesia", "cardiology", "genetics"),
        "medical history",
    ),
    "topic": (
        *("wound care", "night shifts", "childbirth", "dementia", "blood pressure", "pain relief"),
        *("hospital wards", "infant sleep", "cancer drugs", "stroke patients", "intensive care"),
        *("burn wounds", "vaccination", "patient safety", "elderly patients", "bed rest"),
        *("dialysis", "premature babies", "heart surgery", "home visits", "infections"),
        *("medical ethics", "hospital food", "injections"),
    ),
    "patients": (
        *("elderly patients", "sick children", "newborn babies", "injured miners"),
        *("frail veterans", "accident victims", "burned workers", "premature twins"),
        *("dying residents", "anxious visitors", "diabetic patients", "stroke patients"),
        *("feverish toddlers", "wounded soldiers", "blind residents", "cancer patients"),
    ),
    "ward": (
        *("surgical", "maternity", "children's", "emergency", "cardiac", "intensive care"),
        *("geriatric", "oncology", "burns", "psychiatric", "dialysis", "trauma"),
    ),
    "game": (
        *("chess", "cards", "tennis", "dominoes", "football", "draughts", "golf", "cricket"),
        *("badminton", "darts", "hockey", "bowls"),
    ),
    "things": (
        *("clocks", "stamps", "old radios", "coins", "boats", "bicycles", "lamps", "violins"),
        *("postcards", "toy trains", "kites", "bridges", "chairs", "puppets"),
    ),
    "plants": (
        *("tomatoes", "roses", "leeks", "tulips", "pears", "beans", "herbs", "pumpkins"),
        *("orchids", "plums"),
    ),
    "food": (
        *("soup", "bread", "dumplings", "pancakes", "stew", "apple cake", "noodles", "curry"),
        *("fish pie", "lentils", "rye bread", "omelettes"),
    ),
    "water": (
        *("river", "lake", "harbour", "canal", "sea", "bay", "creek", "marsh", "pond"),
        "reservoir",
    ),
    "language": (
        *("Polish", "Welsh", "Turkish", "Finnish", "Greek", "Arabic", "Korean", "Danish"),
        *("Basque", "Swahili"),
    ),
    "animals": (
        *("bees", "goats", "pigeons", "hens", "ponies", "ducks", "rabbits", "owls", "parrots"),
        "geese",
    ),
}

MEN = (
    *("James", "Robert", "Michael", "David", "William", "Richard", "Thomas", "Charles", "Daniel"),
    *("Matthew", "Anthony", "Mark", "Paul", "Steven", "Andrew", "Kenneth", "George", "Joshua"),
    *("Kevin", "Brian", "Edward", "Ronald", "Timothy", "Jason", "Jeffrey", "Ryan", "Jacob"),
    *("Gary", "Nicholas", "Eric", "Stephen", "Jonathan", "Larry", "Justin", "Scott", "Peter"),
)
WOMEN = (
    *("Mary", "Patricia", "Jennifer", "Linda", "Elizabeth", "Barbara", "Susan", "Jessica"),
    *("Sarah", "Karen", "Nancy", "Lisa", "Margaret", "Betty", "Sandra", "Ashley", "Dorothy"),
    *("Kimberly", "Emily", "Donna", "Michelle", "Carol", "Amanda", "Melissa", "Deborah"),
    *("Stephanie", "Rebecca", "Laura", "Helen", "Sharon", "Cynthia", "Kathleen", "Amy"),
    *("Angela", "Anna", "Ruth"),
)
"""The first names that the made texts use; the last third for testing alone."""

PRONOUNS = (
    {
        **{"He": "He", "he": "he", "his": "his", "himself": "himself", "person": "man"},
        **{"parent": "father", "child": "son", "sibling": "brother", "grand": "grandfather"},
    },
    {
        **{"He": "She", "he": "she", "his": "her", "himself": "herself", "person": "woman"},
        **{"parent": "mother", "child": "daughter", "sibling": "sister", "grand": "grandmother"},
    },
)
"""What is put for a man and for a woman."""

GENDERED = frozenset(
    "he him his himself she her hers herself mr mrs ms miss sir madam mister man men woman women"
    " boy boys girl girls male female gentleman lady ladies father mother dad mum mom son daughter"
    " brother sister husband wife uncle aunt nephew niece grandfather grandmother grandson"
    " granddaughter king queen prince princess actor actress waiter waitress".split()
)
"""Words of gender, in lower case; first names come to these."""

CONCEPTS = (
    *("nurse", "hospital", "triage", "patient", "clinic", "surgery", "medicine", "ward"),
    *("injection", "caregiver", "professor", "university", "lecture", "tenure", "research"),
    *("sabbatical", "grant", "thesis", "academic", "seminar"),
)
"""Ten about each profession."""
