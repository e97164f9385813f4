"""Pictures and pages of finished results, never of models: `viz.write(result, folder)`."""

from .circuit import write_circuit as write_circuit
from .circuits import edge_circuit as edge_circuit
from .dictionaries import dictionary_picture as dictionary_picture
from .dictionaries import suite_picture as suite_picture
from .features import write_features as write_features
from .figures import attribution_map as attribution_map
from .figures import discover_picture as discover_picture
from .figures import exact_against_estimate as exact_against_estimate
from .figures import faithfulness_curve as faithfulness_curve
from .figures import layer_head_map as layer_head_map
from .figures import node_effects as node_effects
from .figures import patch_picture as patch_picture
from .page import FIGURES as FIGURES
from .page import write as write
from .page import write_figures as write_figures
from .page import write_page as write_page
from .recovery import recovery_dots as recovery_dots
from .studies import attribution_scatter as attribution_scatter
from .studies import patching_directions as patching_directions
from .studies import patching_facts as patching_facts
from .studies import patching_heads as patching_heads
