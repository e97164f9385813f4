"""The frame of a page with a graph to walk through: `circuit.js` and `controls.js` fill it in."""

from collections.abc import Sequence
from html import escape


def graph_body(
    title: str,
    about: str,
    *,
    find: str,
    reads: str,
    legend: Sequence[tuple[str, str]],
    note: str,
    tool: str = "",
    card: str = "",
) -> str:
    """The page's HTML.

    - `find`: a node that one could look for. `reads`: what the graph shows, for who hears it.
      `legend`: (class, words). `note`: how to use it. `tool`, `card`: what else stands among the
      tools, and beside the graph.
    """
    items = "".join(f'<li class="{kind}">{escape(words)}</li>' for kind, words in legend)
    return f"""<header>
<h1>{escape(title)}</h1>
<p class="sub">{escape(about)}</p>
</header>
<form class="tools">
<span class="slide"><input id="slider" type="range" min="0" max="1000" aria-label="edges shown">
<span id="ticks" aria-hidden="true"></span></span>
<label><input id="size" type="number" min="1" aria-label="number of edges"> edges</label>
<input id="find" type="search" list="names" placeholder="find a node"
 aria-label="find a node, such as {escape(find)}; Enter shows it"><datalist id="names"></datalist>
<button id="fit" type="button">whole graph</button>{tool}
</form>
<p id="said" role="status"></p>
<main>
<div id="view">
<svg id="graph" role="group" aria-label="{escape(reads)}">
<g id="camera"><g id="layers"></g><g id="links"></g><g id="lines"></g><g id="hits"></g>
<g id="parts"></g></g></svg>
<div id="tip" hidden></div>
</div>
<aside>{card}
<svg id="curve" viewBox="0 0 340 210" role="img" aria-label="faithfulness against edges"></svg>
<ul id="legend">{items}</ul>
<p class="note">{escape(note)}</p>
<div id="list"></div>
</aside>
</main>"""
