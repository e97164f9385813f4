"""What the authors report of SHIFT on Bias in Bios, beside ours: another task, other models.

As printed in the notebook `bib_shift` beside Marks et al. 2024 (arXiv 2403.19647): profession,
gender and worst group in percent, one seed each. Imports nothing of jaxcirc.
"""

SOURCE = "Marks et al. 2024, notebook bib_shift"

PUBLISHED: dict[str, dict[str, tuple[float, float, float]]] = {
    "Pythia-70m": {
        "original": (61.9, 87.4, 24.4),
        "CBP": (83.4, 60.1, 67.7),
        "SHIFT": (88.5, 54.0, 76.0),
        "SHIFT + retrain": (93.1, 52.0, 89.0),
        "neuron skyline": (75.5, 73.2, 41.5),
        "feature skyline": (88.5, 54.3, 76.0),
        "oracle": (93.0, 49.4, 91.9),
    },
    "Gemma-2-2B": {
        "original": (67.7, 81.9, 18.2),
        "CBP": (90.2, 50.1, 86.8),
        "SHIFT": (76.0, 51.5, 50.0),
        "SHIFT + retrain": (95.0, 52.4, 92.9),
        "neuron skyline": (65.1, 84.3, 4.6),
        "feature skyline": (80.9, 53.7, 56.7),
        "oracle": (95.0, 50.6, 92.8),
    },
}
