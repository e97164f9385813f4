"""Unsupervised circuits: behaviours found by clustering what a model predicts well."""

from ._batch import How as How
from ._batch import cluster_circuits as cluster_circuits
from ._gradients import gradient_rows as gradient_rows
from ._gradients import sketch_of as sketch_of
from ._group import clusters_of as clusters_of
from ._group import grouped as grouped
from ._group import shuffled as shuffled
from ._group import stability as stability
from ._job import Halves as Halves
from ._job import halves as halves
from ._job import node_means as node_means
from ._job import run_circuits as run_circuits
from ._measures import HeldOut as HeldOut
from ._measures import Measures as Measures
from ._measures import difference as difference
from ._measures import explained as explained
from ._page import Cluster as Cluster
from ._page import ClusterPage as ClusterPage
from ._page import cluster_page as cluster_page
from ._page import find_peaks as find_peaks
from ._represent import represent as represent
from ._samples import Samples as Samples
from ._samples import copied as copied
from ._samples import find_samples as find_samples
from ._settings import Settings as Settings
from ._study import study_clusters as study_clusters
