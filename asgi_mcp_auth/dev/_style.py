"""The style sheet of the pages: one column, dark and light, visible focus, no external resources."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

__all__ = ("STYLE", "STYLE_SOURCE")

STYLE: Final = """
:root {
  color-scheme: light dark;
  --page: #f3f4f7; --card: #ffffff; --text: #1c2026; --soft: #565d6b; --line: #d9dce3;
  --accent: #1f5fd0; --on-accent: #ffffff; --warn: #fff4dc; --warn-line: #d99a1c; --warn-text: #4d3503;
  --code: #eef0f4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14161b; --card: #1e2128; --text: #e7e9ee; --soft: #a4abb9; --line: #363b46;
    --accent: #8ab4ff; --on-accent: #0c1a33; --warn: #35290f; --warn-line: #c9922b; --warn-text: #f6dfae;
    --code: #2a2e37;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; min-height: 100vh; padding: 0 1rem 2rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
.banner {
  margin: 0 -1rem 2rem; padding: .6rem 1rem; text-align: center; font-size: .875rem;
  background: var(--warn); color: var(--warn-text); border-bottom: 1px solid var(--warn-line);
}
main {
  max-width: 32rem; margin: 0 auto; padding: 1.75rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 14px;
}
h1 { margin: 0; font-size: 1.4rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 1.5rem 0 .5rem; font-size: 1rem; }
p { margin: .5rem 0 0; }
.soft { color: var(--soft); font-size: .9rem; }
dl { margin: 1.25rem 0 0; border-top: 1px solid var(--line); }
dl > div { display: flex; gap: 1rem; padding: .6rem 0; border-bottom: 1px solid var(--line); }
dt { flex: 0 0 8rem; color: var(--soft); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
code {
  padding: .1em .35em; border-radius: 5px; background: var(--code); overflow-wrap: anywhere;
  font: .875em ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace;
}
ul { margin: 0; padding: 0; list-style: none; }
li { padding: .4rem 0 .4rem 1.6rem; position: relative; }
li::before { content: "\\2713"; position: absolute; left: .2rem; color: var(--accent); font-weight: 700; }
li code { margin-left: .35rem; }
.plain li { padding-left: 0; }
.plain li::before { content: none; }
.note {
  margin-top: 1.25rem; padding: .75rem 1rem; border-left: 4px solid var(--warn-line); border-radius: 6px;
  background: var(--warn); color: var(--warn-text); font-size: .9rem; overflow-wrap: anywhere;
}
fieldset { margin: 1.5rem 0 0; padding: 0; border: 0; }
legend { padding: 0; margin-bottom: .5rem; font-weight: 600; }
.users { display: flex; flex-wrap: wrap; gap: .5rem; }
.users label {
  display: flex; align-items: center; gap: .5rem; padding: .5rem .9rem; cursor: pointer;
  border: 1px solid var(--line); border-radius: 999px;
}
.users label:has(:checked) { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }
.users input { margin: 0; accent-color: var(--accent); }
.actions { display: flex; gap: .75rem; margin-top: 1.75rem; }
button {
  flex: 1; padding: .75rem 1rem; font: inherit; font-weight: 600; cursor: pointer; color: var(--text);
  background: transparent; border: 1px solid var(--line); border-radius: 9px;
}
button:hover { border-color: var(--accent); }
button.primary { background: var(--accent); color: var(--on-accent); border-color: var(--accent); }
button.primary:hover { filter: brightness(1.08); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
label:has(:focus-visible) { outline: 3px solid var(--accent); outline-offset: 2px; }
label :focus-visible { outline: none; }
footer { max-width: 32rem; margin: 1rem auto 0; color: var(--soft); font-size: .8rem; text-align: center; }
a { color: var(--accent); }
@media (max-width: 30rem) {
  main { padding: 1.25rem; }
  dl > div { display: block; }
}
"""

# A policy with the hash of the style sheet allows no other style sheet (CSP Level 3 section 2.3.1).
STYLE_SOURCE: Final = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode('utf-8')).digest()).decode('ascii')}'"
