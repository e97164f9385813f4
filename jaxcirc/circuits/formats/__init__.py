"""Circuits as files: the graph JSON of EAP-IG and MIB, Graphviz DOT, attribution-graph JSON."""

from ._dot import write_dot as write_dot
from ._graph_json import Helpful as Helpful
from ._graph_json import grouped as grouped
from ._graph_json import read_graph as read_graph
from ._graph_json import ungrouped as ungrouped
from ._graph_json import write_graph as write_graph
from ._names import edge_name as edge_name
from ._names import name_of as name_of
from ._names import parse_edge as parse_edge
from ._names import parse_name as parse_name
from ._neuronpedia import write_neuronpedia as write_neuronpedia
