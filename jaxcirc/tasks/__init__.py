"""Tasks: pairs of prompts with right and wrong answers, and metrics of the logits behind them."""

from ._ioi import CORRUPTIONS as CORRUPTIONS
from ._ioi import ioi as ioi
from ._jsonl import Drop as Drop
from ._jsonl import Loaded as Loaded
from ._jsonl import from_jsonl as from_jsonl
from ._tasks import TASKS as TASKS
from ._texts import from_texts as from_texts
from .direction import ends as ends
from .direction import sign as sign
from .interval import Interval as Interval
from .interval import interval as interval
from .interval import recovered as recovered
from .interval import recovered_each as recovered_each
from .metric import LESS_IS_BETTER as LESS_IS_BETTER
from .metric import METRICS as METRICS
from .metric import Metric as Metric
from .metric import Metrics as Metrics
from .metric import accuracy as accuracy
from .metric import kl as kl
from .metric import log_probability as log_probability
from .metric import logit_difference as logit_difference
from .metric import logit_functional as logit_functional
from .metric import name_metrics as name_metrics
from .metric import probability as probability
from .prompt import Prompts as Prompts
from .prompt import with_reference as with_reference
